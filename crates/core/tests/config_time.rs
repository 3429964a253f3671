//! scratch
use anywan_core::config::*;
#[test]
fn t() {
    let pieces = [
        "[",
        "a.",
        "{a=",
        "[[wan]]\n",
        "[[lan]]\ninterface=\"x\"\n",
        "a\n",
        "a=1\n",
        "\"",
        "=",
        "x",
        "[wan]\n",
        "[wan.health]\n",
        "a=[\n",
        "\u{1}",
        "é",
        "{b=1,b=1},",
        "1.1.1.1 ",
        "[[wan]]\nname=\"a\"\ninterface=\"x\"\n",
        "\r",
        "''' ",
    ];
    for piece in pieces {
        for pre in [false, true] {
            let mut t = piece.repeat(MAX_BYTES / piece.len());
            if pre {
                t = format!("wan = {}", &t[6..]);
            }
            let s = std::time::Instant::now();
            let f = parse(&t).err().unwrap_or_default();
            let a = s.elapsed();
            let (_, e) = toml::de::DeTable::parse_recoverable(&t);
            let a2 = s.elapsed() - a;
            let n = render("x", &t, &f, false).len();
            println!(
                "{piece:?} {pre} parse {a:?} (toml {a2:?} {}) render {:?} {} {n}",
                e.len(),
                s.elapsed() - a - a2,
                f.len()
            );
        }
    }
    let t: String =
        "[router]\n".to_owned() + &(0..100000).map(|n| format!("a{n}=1\n")).collect::<String>();
    let s = std::time::Instant::now();
    let f = parse(&t).err().unwrap_or_default();
    println!("keys {:?} {}", s.elapsed(), f.len());
}
