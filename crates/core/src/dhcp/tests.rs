//! The client against servers of all kinds, second by second.

use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);

/// A client and the time.
struct Trial {
    client: Client,
    now: Moment,
    /// Addresses that the kernel has.
    held: Vec<Ipv4Addr>,
    lans: Vec<Ipv4Net>,
    sent: Vec<Message>,
    checked: Vec<Ipv4Addr>,
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Trial {
    fn new(lease: Option<Lease>) -> Trial {
        let held = lease.iter().map(|lease| lease.address).collect();
        Trial {
            client: Client::new(lease, 7),
            now: Moment::default() + seconds(100),
            held,
            lans: vec!["192.168.1.1/24".parse().expect("a network")],
            sent: Vec::new(),
            checked: Vec::new(),
        }
    }

    fn plug(&mut self, index: u32) {
        let held = self.held.clone();
        let port = (index != 0).then_some(Port { device: IfIndex(index), mac: MAC });
        self.client.link(port, |address| held.contains(&address), self.now);
        self.wake();
    }

    fn wake(&mut self) {
        for order in self.client.wake(self.now) {
            match order {
                Order::Send(message) => self.sent.push(message),
                Order::Check(address) => self.checked.push(address),
            }
        }
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        let mut turns = 0;
        while let Some(next) = self.client.deadline(self.now).filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.wake();
            turns += 1;
            assert!(turns < 10_000, "deadlines that nothing comes of");
        }
        self.now = end;
    }

    fn last(&self) -> &Message {
        self.sent.last().expect("something was sent")
    }

    fn say(&mut self, verdict: Verdict, change: impl FnOnce(&mut Reply)) {
        let mut reply = Reply {
            verdict,
            xid: self.last().xid,
            address: OWN,
            server: Some(SERVER),
            via: Mac([2, 0, 0, 0, 0, 9]),
            mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            routers: vec![SERVER],
            dns: vec![SERVER],
            domain: None,
            mtu: None,
            routes: Vec::new(),
            seconds: Some(1000),
            renewal: None,
            rebinding: None,
        };
        change(&mut reply);
        let lans = self.lans.clone();
        self.client.hear(&reply, &lans, self.now);
        self.wake();
    }

    fn code(&self) -> &str {
        self.client.trouble(self.now).map_or("", |trouble| trouble.code)
    }

    fn bound() -> Trial {
        let mut trial = Trial::new(None);
        trial.plug(3);
        trial.say(Verdict::Offer, |_| {});
        trial.say(Verdict::Ack, |_| {});
        trial.pass(seconds(1));
        assert!(trial.client.lease().is_some(), "{:?}", trial.client);
        trial.held = vec![OWN];
        trial
    }
}

#[test]
fn from_nothing_to_a_lease_in_four_messages_and_a_check() {
    let mut trial = Trial::new(None);
    assert_eq!(trial.client.deadline(trial.now), None, "nothing without a link");
    trial.plug(3);
    assert_eq!(trial.last().kind, Kind::Discover);
    trial.say(Verdict::Offer, |_| {});
    let request = trial.last().clone();
    assert_eq!(
        (request.kind, request.wanted, request.server, request.own),
        (Kind::Request, Some(OWN), Some(SERVER), None)
    );
    assert_eq!(request.xid, trial.sent[0].xid);
    trial.say(Verdict::Ack, |_| {});
    assert!(trial.client.lease().is_none(), "not before it was checked");
    assert!(!trial.client.is_decided(), "nor is the address given up that a restart may find");
    trial.pass(seconds(1));
    assert!(trial.client.is_decided());
    assert_eq!(trial.checked, [OWN; 3]);
    let lease = trial.client.lease().expect("a lease");
    assert_eq!((lease.prefix, lease.gateway), (24, Some(SERVER)));
    assert_eq!(trial.code(), "");
}

#[test]
fn silence_is_told_after_ten_seconds_and_asked_into_for_ever() {
    let mut trial = Trial::new(None);
    trial.plug(3);
    trial.pass(seconds(9));
    assert_eq!(trial.code(), "");
    trial.pass(seconds(2));
    assert_eq!(trial.code(), "dhcp.no-answer");
    trial.pass(seconds(3600));
    let asked = trial.sent.len();
    assert!((50..80).contains(&asked), "{asked}");
    assert!(trial.sent.iter().any(|m| m.broadcast) && trial.sent.iter().any(|m| !m.broadcast));
    trial.say(Verdict::Offer, |_| {});
    trial.say(Verdict::Ack, |_| {});
    trial.pass(seconds(1));
    assert!(trial.client.lease().is_some() && trial.code().is_empty());
}

#[test]
fn a_lease_is_renewed_by_its_server_then_by_any_and_then_runs_out() {
    let mut trial = Trial::bound();
    let before = trial.sent.len();
    trial.pass(seconds(505));
    let renewal = trial.last().clone();
    assert_eq!((renewal.kind, renewal.own, renewal.wanted), (Kind::Request, Some(OWN), None));
    assert_eq!(renewal.to.map(|(server, _)| server), Some(SERVER));
    trial.say(Verdict::Ack, |reply| reply.seconds = Some(2000));
    assert!(trial.client.lease().is_some_and(|l| l.until == Some(trial.now + seconds(2000))));
    assert_eq!(trial.sent.len(), before + 1, "no check of an address that is ours");
    trial.pass(seconds(1760));
    assert_eq!(trial.last().to, None, "any server");
    assert_eq!(trial.code(), "dhcp.not-renewed");
    assert!(trial.client.lease().is_some());
    trial.pass(seconds(250));
    assert!(trial.client.lease().is_none());
    assert_eq!(trial.last().kind, Kind::Discover);
}

#[test]
fn while_its_own_server_is_asked_to_renew_a_strangers_word_changes_nothing() {
    let mut trial = Trial::bound();
    trial.pass(seconds(505));
    let stranger = Some(Ipv4Addr::new(10, 0, 0, 66));
    trial.say(Verdict::Nak, |reply| reply.server = stranger);
    trial.say(Verdict::Ack, |reply| (reply.server, reply.seconds) = (stranger, Some(9000)));
    let until = |trial: &Trial| trial.client.lease().and_then(|lease| lease.until);
    assert!(until(&trial).is_some_and(|end| end <= trial.now + seconds(500)), "still the old one");
    trial.say(Verdict::Ack, |_| {});
    assert_eq!(until(&trial), Some(trial.now + seconds(1000)));
}

#[test]
fn a_renewal_may_bring_another_address_which_is_checked_first() {
    let mut trial = Trial::bound();
    trial.pass(seconds(505));
    let other = Ipv4Addr::new(10, 0, 0, 78);
    trial.say(Verdict::Ack, |reply| reply.address = other);
    assert!(trial.client.lease().is_some_and(|lease| lease.address == OWN), "until it is checked");
    trial.pass(seconds(1));
    assert!(trial.client.lease().is_some_and(|lease| lease.address == other));
}

#[test]
fn after_a_restart_or_a_lost_carrier_the_lease_is_asked_for_and_stays_in_force() {
    let lease = Trial::bound().client.lease().cloned();
    let mut trial = Trial::new(lease);
    trial.plug(3);
    assert!(trial.client.lease().is_some());
    let ask = trial.last().clone();
    assert_eq!(
        (ask.kind, ask.wanted, ask.server, ask.own, ask.to),
        (Kind::Request, Some(OWN), None, None, None)
    );
    trial.say(Verdict::Ack, |_| {});
    assert!(trial.client.lease().is_some() && trial.checked.is_empty());
    trial.plug(0);
    assert!(trial.client.lease().is_some(), "no carrier is no end of a lease");
    trial.plug(3);
    assert_eq!((trial.last().kind, trial.last().wanted), (Kind::Request, Some(OWN)));
    // Nobody answers: it is used until it runs out.
    trial.pass(seconds(300));
    assert!(trial.client.lease().is_some());
    trial.pass(seconds(800));
    assert!(trial.client.lease().is_none());
}

#[test]
fn under_another_index_the_address_waits_for_the_servers_word() {
    let mut trial = Trial::bound();
    trial.held.clear();
    trial.plug(4);
    assert!(trial.client.lease().is_none());
    assert_eq!((trial.last().kind, trial.last().wanted), (Kind::Request, Some(OWN)));
    trial.say(Verdict::Ack, |_| {});
    trial.pass(seconds(1));
    assert!(trial.client.lease().is_some());
}

#[test]
fn a_refusal_ends_the_lease_at_once_and_many_are_told_and_slow_it_down() {
    let mut trial = Trial::bound();
    trial.pass(seconds(505));
    trial.say(Verdict::Nak, |_| {});
    assert!(trial.client.lease().is_none());
    assert_eq!(trial.last().kind, Kind::Discover, "begun anew without a pause");
    let before = trial.sent.len();
    for _ in 0..600 {
        match trial.last().kind {
            Kind::Discover => trial.say(Verdict::Offer, |_| {}),
            Kind::Request => trial.say(Verdict::Nak, |_| {}),
            Kind::Decline | Kind::Release => unreachable!("{:?}", trial.last()),
        }
        trial.pass(seconds(1));
    }
    assert_eq!(trial.code(), "dhcp.refused");
    let rounds = trial.sent.len() - before;
    assert!(rounds < 60, "{rounds} messages in ten minutes");
}

#[test]
fn an_address_that_somebody_has_is_declined() {
    let mut trial = Trial::new(None);
    trial.plug(3);
    trial.say(Verdict::Offer, |_| {});
    trial.say(Verdict::Ack, |_| {});
    let orders = trial.client.taken(OWN, Mac([2, 0, 0, 0, 0, 5]), trial.now);
    let [Order::Send(decline)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!(
        (decline.kind, decline.wanted, decline.server),
        (Kind::Decline, Some(OWN), Some(SERVER))
    );
    assert_eq!(trial.code(), "dhcp.address-taken");
    trial.pass(seconds(11));
    assert!(trial.client.lease().is_none());
    assert_eq!(trial.last().kind, Kind::Discover);
}

/// What is offered first, and is not taken: a good offer that comes later is.
fn refuses(code: &str, change: impl FnOnce(&mut Reply)) {
    let mut trial = Trial::new(None);
    trial.plug(3);
    trial.say(Verdict::Offer, change);
    assert_eq!((trial.last().kind, trial.code()), (Kind::Discover, code));
    trial.say(Verdict::Offer, |_| {});
    assert_eq!(trial.last().kind, Kind::Request);
    trial.say(Verdict::Ack, |_| {});
    trial.pass(seconds(1));
    assert_eq!(trial.code(), "");
}

#[test]
fn offers_that_make_no_sense_are_passed_over_and_told() {
    refuses("dhcp.lan-subnet", |reply| reply.address = Ipv4Addr::new(192, 168, 1, 7));
    refuses("dhcp.lan-subnet", |reply| {
        reply.address = Ipv4Addr::new(192, 168, 9, 7);
        reply.mask = Some(Ipv4Addr::new(255, 255, 0, 0));
    });
    for seconds in [0, 1, 19] {
        refuses("dhcp.bad-offer", |reply| reply.seconds = Some(seconds));
    }
    for mask in [[0, 0, 0, 0], [128, 0, 0, 0], [254, 0, 0, 0]] {
        refuses("dhcp.bad-offer", |reply| reply.mask = Some(mask.into()));
    }
    let own = OWN.octets();
    for router in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], own] {
        refuses("dhcp.bad-offer", |reply| reply.routers = vec![router.into()]);
    }
    refuses("dhcp.lan-subnet", |reply| reply.routers = vec![[192, 168, 1, 9].into()]);
    refuses("dhcp.bad-offer", |reply| reply.seconds = None);
    refuses("dhcp.bad-offer", |reply| reply.server = None);
    refuses("dhcp.bad-offer", |reply| reply.mask = Some(Ipv4Addr::new(255, 0, 255, 0)));
    for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [10, 0, 0, 0], [10, 0, 0, 255]] {
        refuses("dhcp.bad-offer", |reply| reply.address = address.into());
    }
    refuses("", |reply| reply.xid ^= 1);
}

#[test]
fn what_is_odd_but_usable_is_used() {
    let judged = |change: fn(&mut Reply)| {
        let mut trial = Trial::new(None);
        trial.plug(3);
        trial.say(Verdict::Offer, |_| {});
        trial.say(Verdict::Ack, change);
        trial.pass(seconds(1));
        trial.client.lease().expect("a lease").clone()
    };
    let no_mask = judged(|reply| (reply.mask, reply.routers) = (None, Vec::new()));
    assert_eq!((no_mask.prefix, no_mask.gateway), (8, None));
    assert_eq!(judged(|reply| reply.seconds = Some(u32::MAX)).until, None);
    let elsewhere = judged(|reply| {
        (reply.mask, reply.routers) =
            (Some(Ipv4Addr::BROADCAST), vec![[0, 0, 0, 0].into(), [10, 9, 9, 9].into()]);
    });
    assert_eq!(elsewhere.gateway, Some([10, 9, 9, 9].into()), "with a /32 it is always outside");
    assert_eq!(judged(|reply| reply.mtu = Some(68)).mtu, None);
    assert_eq!(judged(|reply| reply.mtu = Some(1400)).mtu, Some(1400));
    let routed = judged(|reply| {
        let net = |text: &str| text.parse().expect("a network");
        let other = Ipv4Addr::new(10, 0, 0, 2);
        reply.routes = vec![
            (net("172.16.0.0/12"), other),
            (net("0.0.0.0/0"), other),
            (net("0.0.0.0/1"), other),
            (net("192.168.1.128/25"), other),
            (net("10.9.0.0/16"), Ipv4Addr::UNSPECIFIED),
        ];
    });
    assert_eq!(routed.gateway, Some(Ipv4Addr::new(10, 0, 0, 2)), "it overrides the router");
    let to: Vec<String> = routed.routes.iter().map(|(to, _)| to.to_string()).collect();
    assert_eq!(to, ["172.16.0.0/12", "10.9.0.0/16"], "no half of the internet, nothing of a LAN");
    assert_eq!(routed.routes[1].1, None);
}

#[test]
fn giving_back_says_whose_it_was() {
    let mut trial = Trial::bound();
    let message = trial.client.release(trial.now).expect("there is a lease");
    assert_eq!(
        (message.kind, message.own, message.server),
        (Kind::Release, Some(OWN), Some(SERVER))
    );
    assert!(trial.client.lease().is_none() && trial.client.last_lease().is_none());
    assert_eq!(trial.client.release(trial.now), None);
}

#[test]
fn a_lease_without_end_is_never_renewed() {
    let mut trial = Trial::new(None);
    trial.plug(3);
    trial.say(Verdict::Offer, |_| {});
    trial.say(Verdict::Ack, |reply| reply.seconds = Some(u32::MAX));
    trial.pass(seconds(1));
    assert_eq!(trial.client.deadline(trial.now), None);
}
