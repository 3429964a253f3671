//! scratch
#[test]
fn scratch() {
    for t in [
        "name = adsl\n", "gateway = 192.168.1.1\nb = 3\n", "name = \"adsl\nb = 1\n", "a = 1s\n", "a = 1m\n",
        "[[wan]]\nname=1\n[wan]\nname=2\n", "[wan]\n[[wan]]\n", "hello world this is not a config\nand more\n",
        "{\"lan\": [1]}\n", "<html>\n<body>\n", "lan: eth0\nwan:\n  - a\n", "a = \"1\n", "a = 'x\n", "[[wan]\nname=1\n", "[[wan]]]\n", "a =\n", "a = [1, 2\nb = 3\n", "a = [1 2]\n", "a = 0x7f000000\nb=-5\nc=+1_000\nd=007\ne=1.5\n", "a = true false\n", "a = True\n", "a = yes\n", "a = “x”\n", "\u{feff}a = 1\r\nb = 2\r\n", "a = 1\rb = 2", "a=1\na=2\n", "[a]\n[a]\n", "a.b.c = 1\n", "wan.health.interval=1\n", "a = \"\\q\"\n", "a = \"x\u{1}y\"\n", "\ta\t=\t1\n", "config wan 'lte'\n\toption x '1'\n", "[wan.health]\na=1\n[[wan]]\nb=1\n", "a = 99999999999999999999999999\n", "a = 2024-01-01\n", "= 3\n", "a 3\n", "a = {b = 1\nc = 2}\n","[]\na=1\n", "[a b]\nc=1\n", "x = \"a\" \"b\"\n", "a = b = c\n", "# only comment", "a", "PK\u{3}\u{4}\0\0\0", "interface = eth0 # c\n", "a: 1\n", "a = fe80::1\n", "[[wan]]\nname = \"a\";\n", "a=1 b=2\n", "weight = 8;\n", "target = [1.1.1.1]\n"
    ] {
        let (v, e) = toml::de::DeTable::parse_recoverable(t);
        println!("----- {t:?}\n   {:?}", v.get_ref());
        for e in e { println!("   E {:?} {:?}", e.span().map(|s| (s.clone(), t.get(s))), e.message()); }
    }
}
