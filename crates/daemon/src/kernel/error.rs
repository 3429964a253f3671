//! What can go wrong between us and the kernel: always the operation and its object, with the
//! kernel's own words when it gave any.

use std::io;

use thiserror::Error;

/// A failed reading or change of the kernel.
#[derive(Debug, Error)]
pub enum KernelError {
    /// A socket could not be opened.
    #[error("open {what}")]
    Open {
        /// The socket.
        what: &'static str,
        /// What a person can do.
        hint: &'static str,
        /// Why.
        #[source]
        source: Refused,
    },
    /// The kernel refused a request, or did not answer it.
    #[error("{what}")]
    Request {
        /// The operation and its object.
        what: String,
        /// Why.
        #[source]
        source: Refused,
    },
    /// A kernel parameter could not be read or written.
    #[error("{what}")]
    Sysctl {
        /// The operation and the parameter.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A path of a kernel parameter that is none.
    #[error("{path:?} is no path of a kernel parameter below net/")]
    SysctlPath {
        /// The path.
        path: String,
    },
    /// A file that says which CPUs serve something could not be written.
    #[error("{what}")]
    Cpus {
        /// The operation and the file.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `nft` could not be run.
    #[error("run nft to load our table")]
    NftRun {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `nft` refused our table.
    #[error("nft refused our table: {stderr}")]
    NftRefused {
        /// What it said.
        stderr: String,
    },
    /// `nft` did not finish in time and was killed.
    #[error("nft did not load our table within {seconds} s and was killed")]
    NftDeadline {
        /// The deadline in seconds.
        seconds: u64,
    },
}

impl KernelError {
    /// What a person can do, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            KernelError::Open { hint, .. } => Some(hint),
            KernelError::NftRun { .. } => Some("install the package nftables (nft 1.0.6 or newer)"),
            KernelError::Request { .. }
            | KernelError::Sysctl { .. }
            | KernelError::SysctlPath { .. }
            | KernelError::Cpus { .. }
            | KernelError::NftRefused { .. }
            | KernelError::NftDeadline { .. } => None,
        }
    }

    /// Whether the same step may work when it is simply tried again. Everything else needs the
    /// facts to be read again first, or a person.
    pub fn is_transient(&self) -> bool {
        match self {
            KernelError::Open { source, .. } | KernelError::Request { source, .. } => {
                source.is_transient()
            }
            KernelError::NftDeadline { .. } => true,
            KernelError::Sysctl { .. }
            | KernelError::SysctlPath { .. }
            | KernelError::Cpus { .. }
            | KernelError::NftRun { .. }
            | KernelError::NftRefused { .. } => false,
        }
    }
}

/// Why a netlink request failed.
#[derive(Debug, Error)]
pub enum Refused {
    /// The kernel answered with an error.
    #[error("{}{}", io::Error::from_raw_os_error(*errno), said(message))]
    Kernel {
        /// The error number, positive.
        errno: i32,
        /// The kernel's explanation (extended acknowledgement), "" when it gave none.
        message: String,
    },
    /// The socket failed.
    #[error("netlink socket")]
    Socket(#[from] io::Error),
    /// No answer came in time.
    #[error("the kernel did not answer within {0} ms")]
    Timeout(u64),
    /// The table changed each time while it was read.
    #[error("it kept changing while it was read ({0} attempts)")]
    Interrupted(u32),
    /// The answer made no sense.
    #[error("the answer was malformed")]
    Malformed,
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": the kernel says {message:?}") }
}

impl Refused {
    /// The kernel's error number, when it answered with one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Refused::Kernel { errno, .. } => Some(*errno),
            Refused::Socket(error) => error.raw_os_error(),
            Refused::Timeout(_) | Refused::Interrupted(_) | Refused::Malformed => None,
        }
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Refused::Kernel { errno, .. } => {
                [libc::EAGAIN, libc::EINTR, libc::EBUSY, libc::ENOBUFS, libc::ENOMEM]
                    .contains(errno)
            }
            Refused::Socket(_) | Refused::Timeout(_) | Refused::Interrupted(_) => true,
            Refused::Malformed => false,
        }
    }

    /// Whether the kernel has no such address family (`ipv6.disable=1`): there is nothing to read.
    pub(crate) fn lacks_family(&self) -> bool {
        matches!(self.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
    }

    /// Adds what was being done.
    pub(crate) fn doing(self, what: impl Into<String>) -> KernelError {
        KernelError::Request { what: what.into(), source: self }
    }
}
