//! What systemd-networkd's own configuration says (networkd.conf(5)).

/// Whether it leaves ip rules alone that are not its own. It does so only when told, by
/// `ManageForeignRoutingPolicyRules=no`; of several, the last one holds.
pub(super) fn leaves_rules_alone(texts: &[String]) -> bool {
    let lines = texts.iter().flat_map(|text| text.lines().map(str::trim));
    let mut inside = false;
    let mut alone = false;
    for line in lines {
        if line.starts_with('[') {
            inside = line == "[Network]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
            if key.trim() == "ManageForeignRoutingPolicyRules" {
                let value = value.trim().to_ascii_lowercase();
                alone = matches!(value.as_str(), "no" | "n" | "false" | "f" | "off" | "0");
            }
        }
    }
    alone
}
