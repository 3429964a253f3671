//! Probe targets: who is asked, in which way, and what counts as the answer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::names::Family;

/// One probe target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// ICMP or ICMPv6 echo.
    Icmp(IpAddr),
    /// A TCP handshake; a refusal is an answer too.
    Tcp(IpAddr, u16),
    /// A DNS question over UDP; that the name does not exist is an answer too.
    Dns {
        /// Who is asked.
        server: IpAddr,
        /// The UDP port, 1 to 65535; usually 53.
        port: u16,
        /// The name asked for: lower case, no dot at the end, 1 to 253 bytes.
        name: String,
    },
    /// An HTTP request.
    Http(HttpTarget),
}

/// A page that is fetched, and what it must be like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HttpTarget {
    /// Who has it.
    pub host: Host,
    /// The TCP port, 1 to 65535; usually 80.
    pub port: u16,
    /// The path with its query: begins with `/`, visible ASCII, at most 1,024 bytes.
    pub path: String,
    /// What counts as the answer.
    pub expect: Expect,
}

/// A host, by address or by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Host {
    /// This address.
    Address(IpAddr),
    /// Whatever address the name has as seen through the WAN; written as in [`Target::Dns`].
    Name(String),
}

/// What the response to an HTTP request must be like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Expect {
    /// The status, 200 to 599.
    pub status: u16,
    /// A text that must be contained in the first 4 KiB of the body; 1 to 1,024 bytes.
    pub body: Option<String>,
}

/// In which way a target is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Echo.
    Icmp,
    /// A TCP handshake.
    Tcp,
    /// A DNS question.
    Dns,
    /// An HTTP request.
    Http,
}

impl Target {
    /// In which way it is asked.
    pub fn kind(&self) -> Kind {
        match self {
            Target::Icmp(_) => Kind::Icmp,
            Target::Tcp(..) => Kind::Tcp,
            Target::Dns { .. } => Kind::Dns,
            Target::Http(_) => Kind::Http,
        }
    }

    /// Whether it can be asked over `family`: a name serves both.
    pub fn serves(&self, family: Family) -> bool {
        match self {
            Target::Icmp(address)
            | Target::Tcp(address, _)
            | Target::Dns { server: address, .. }
            | Target::Http(HttpTarget { host: Host::Address(address), .. }) => {
                Family::of(*address) == family
            }
            Target::Http(HttpTarget { host: Host::Name(_), .. }) => true,
        }
    }

    /// Who resolves its name, if it has one to resolve: the servers of the DNS targets among
    /// `side`, all targets of its side, in their order.
    pub fn resolvers(&self, side: &[Target]) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        if let Target::Http(HttpTarget { host: Host::Name(_), .. }) = self {
            for target in side {
                if let Target::Dns { server, port, .. } = target {
                    let server = SocketAddr::new(*server, *port);
                    if !found.contains(&server) {
                        found.push(server);
                    }
                }
            }
        }
        found
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Icmp => "icmp",
            Kind::Tcp => "tcp",
            Kind::Dns => "dns",
            Kind::Http => "http",
        })
    }
}

/// As it is written in the file; what an HTTP target expects is not shown.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Icmp(address) => write!(f, "{address}"),
            Target::Tcp(address, port) => write!(f, "tcp://{}:{port}", Host::Address(*address)),
            Target::Dns { server, port: 53, name } => {
                write!(f, "dns://{}/{name}", Host::Address(*server))
            }
            Target::Dns { server, port, name } => {
                write!(f, "dns://{}:{port}/{name}", Host::Address(*server))
            }
            Target::Http(page) => write!(f, "http://{}{}", page.authority(), page.path),
        }
    }
}

impl HttpTarget {
    /// Host and port as they stand in a URL and in the `Host` header: without the usual port.
    pub fn authority(&self) -> String {
        match self.port {
            80 => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }
}

/// As in a URL: an IPv6 address stands in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Name(name) => f.write_str(name),
        }
    }
}
