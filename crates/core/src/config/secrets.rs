//! Passwords and PINs that others could read: in the configuration file itself, or in a file that it
//! names. In: the configuration, and the modes of files. Out: problems, which name the keys and
//! never what they hold.

use super::model::{Config, Password};
use crate::api::Problem;

/// Everything that somebody else than a file's owner may do with it (stat(2)).
const OTHERS: u32 = 0o077;

/// What is wrong when the file of this configuration has this mode.
pub fn exposed(config: &Config, file: &str, mode: u32) -> Option<Problem> {
    let mut keys = Vec::new();
    let mut password = false;
    for wan in &config.wans {
        let Some(ppp) = &wan.ppp else { continue };
        if let Password::Given(_) = ppp.password {
            password = true;
            keys.push(format!("`secret` of {}", wan.name));
        }
        if ppp.modem().is_some_and(|modem| !modem.pin.is_empty()) {
            keys.push(format!("`pin` of {}", wan.name));
        }
    }
    if keys.is_empty() || mode & OTHERS == 0 {
        return None;
    }
    let own = "; a password may also be in a file of its own, with `secret_file`";
    Some(Problem {
        code: "secret.readable".to_owned(),
        at: file.to_owned(),
        what: format!(
            "others than its owner may read or write it (mode {:o}), and it has {} in it",
            mode & 0o7777,
            keys.join(", ")
        ),
        hint: format!("`chmod 600 {file}`{}", if password { own } else { "" }),
    })
}

/// What is wrong with the files that have passwords; `mode_of` says their modes, where they are.
pub fn exposed_files(config: &Config, mode_of: impl Fn(&str) -> Option<u32>) -> Vec<Problem> {
    let named = config.wans.iter().filter_map(|wan| Some((wan, wan.ppp.as_ref()?.secret_file()?)));
    let exposed = named.filter_map(|(wan, path)| {
        let mode = mode_of(path).filter(|mode| mode & OTHERS != 0)?;
        Some(Problem {
            code: "dial.secret-file".to_owned(),
            at: format!("wan {}", wan.name),
            what: format!(
                "others than its owner may read or write {path} (mode {:o}), so the password in it \
                 is not used",
                mode & 0o7777
            ),
            hint: format!("`chmod 600 {path}`"),
        })
    });
    exposed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(ppp: &str) -> Config {
        parse(&format!(
            "[[lan]]\ninterface = \"lan0\"\n[[wan]]\nname = \"umts\"\ninterface = \"ppp0\"\n\
             [wan.ppp]\n{ppp}\n"
        ))
        .expect("a sound file")
    }

    #[test]
    fn secrets_in_a_file_that_others_may_read_are_told_by_their_keys() {
        let both =
            config("device = \"/dev/m\"\nuser = \"u\"\nsecret = \"hunter2\"\npin = \"4711\"");
        for mode in [0o100_644, 0o640, 0o601, 0o620] {
            let told = exposed(&both, "/etc/a.toml", mode).expect("a problem");
            assert!(told.what.contains("`secret` of umts, `pin` of umts"), "{}", told.what);
            assert!(told.hint.starts_with("`chmod 600 /etc/a.toml`"), "{}", told.hint);
            let text = format!("{told:?}");
            assert!(!text.contains("hunter2") && !text.contains("4711"), "{text}");
        }
        assert_eq!(exposed(&both, "/etc/a.toml", 0o100_600), None);
        assert_eq!(exposed(&config("device = \"/dev/m\""), "/etc/a.toml", 0o644), None);
        let pin = exposed(&config("device = \"/dev/m\"\npin = \"4711\""), "f", 0o644);
        assert!(pin.is_some_and(|told| told.hint == "`chmod 600 f`"));
    }

    #[test]
    fn a_file_with_a_password_that_others_may_read_is_told() {
        let config = config("pppoe = \"eth1\"\nuser = \"u\"\nsecret_file = \"/etc/s\"");
        assert_eq!(exposed(&config, "f", 0o644), None, "there is none in the file itself");
        assert_eq!(exposed_files(&config, |_| Some(0o644)).len(), 1);
        assert!(exposed_files(&config, |_| Some(0o600)).is_empty());
        assert!(exposed_files(&config, |_| None).is_empty());
    }
}
