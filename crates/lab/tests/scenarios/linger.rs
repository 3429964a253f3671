//! Flows on a WAN that a better one has replaced may linger where the file says so; then clients
//! are told to start anew, and nothing that is kept alive stays behind.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::flows::Exchange;
use anywan_lab::servers::ECHO;
use anywan_lab::{Client, Config, Daemon, Failure, Family, Fault, Flows, Proto, Servers, Topology};

use crate::common::{
    DEADLINE, ensure_all_kept, ensure_nothing_wrong_since, flows_of_every_kind, in_both_layouts,
    talk, wait_all_by,
};

/// WAN 1 is the best, flows may linger on WAN 2 for so long; both have flows of WAN 2's time.
fn failed_over(topology: &Topology, linger: &str) -> Result<(Daemon, Client)> {
    let config = Config::of(topology)
        .priorities(&[1, 2, 3])
        .wan(2, |wan| wan.more.push(("linger".to_owned(), linger.to_owned())));
    let daemon = Daemon::start_up(topology, &config)?;
    topology.break_wan(1, &Fault::Blackhole)?;
    for family in Family::BOTH {
        daemon.wait_state("wan1", family, &["down"])?;
    }
    let client = topology.client(1);
    wait_all_by(&client, 2)?;
    Ok((daemon, client))
}

fn failed_back(topology: &Topology, client: &Client) -> Result<()> {
    topology.mend_wan(1, &Fault::Blackhole)?;
    wait_all_by(client, 1)
}

fn open(client: &Client, proto: Proto) -> Result<Flows> {
    let [v4, v6] = Family::BOTH.map(|family| client.flows(10, proto, family));
    Ok(v4?.and(v6?))
}

/// A connection from outside to the router, by WAN 2.
struct Inbound {
    stream: TcpStream,
    _servers: Servers,
}

impl Inbound {
    fn open(topology: &Topology) -> Result<Inbound> {
        let own = topology.wan(2).own(Family::V4).context("an address")?;
        let servers = Servers::start(topology.router(), &[own])?;
        topology.forward_port(2, ECHO)?;
        let outside = SocketAddr::new(topology.wan(2).outside(Family::V4), ECHO);
        let stream = topology.internet().inside(|| TcpStream::connect(outside))??;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut inbound = Inbound { stream, _servers: servers };
        inbound.say()?;
        Ok(inbound)
    }

    fn say(&mut self) -> Result<()> {
        self.stream.write_all(b"x\n").context("say a word")?;
        let length = self.stream.read(&mut [0; 64]).context("hear the answer")?;
        ensure!(length > 0, "the connection is over");
        Ok(())
    }
}

#[test]
fn when_their_time_is_over_tcp_that_only_listens_is_reset_and_udp_goes_on_elsewhere() -> Result<()>
{
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let (_daemon, client) = failed_over(&topology, r#""1s""#)?;
        let (silent, udp) = (open(&client, Proto::Tcp)?, open(&client, Proto::Udp)?);
        ensure!((silent.on(2), udp.on(2)) == (20, 20), "all on WAN 2");
        let mut inbound = Inbound::open(&topology)?;
        let before = topology.all_counts()?;
        failed_back(&topology, &client)?;
        let others = talk(flows_of_every_kind(&client, 5)?);
        let broken = silent.wait_for_breaks(DEADLINE);
        ensure!(broken.failures().get(&Failure::Reset) == Some(&20), "{broken}");
        anywan_lab::until(DEADLINE, "the datagrams to go by the better WAN", || {
            let said: Exchange = udp.exchange(Duration::from_millis(500));
            ensure!(said.results.iter().all(|(_, by)| *by == Ok(1)), "{said}");
            Ok(())
        })?;
        inbound.say().context("what came from outside stays")?;
        ensure_all_kept(others).context("flows of the better WAN stay")?;
        ensure_nothing_wrong_since(&topology, &before)
    })
}

#[test]
fn until_their_time_is_over_flows_stay_where_they_are() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        // Longer than this test.
        let (_daemon, client) = failed_over(&topology, r#""1h""#)?;
        let lingering = talk(flows_of_every_kind(&client, 5)?);
        failed_back(&topology, &client)?;
        let flows = ensure_all_kept(lingering)?;
        ensure!(flows.on(2) == flows.len(), "all on WAN 2");
        Ok(())
    })
}
