//! A DNS server and a web server inside a namespace that answer as a test tells them to.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::PATIENCE;
use crate::internet::Space;

/// How often a server looks whether it should stop.
const TURN: Duration = Duration::from_millis(20);

/// A server's thread; it ends when this is dropped.
pub(crate) struct Server {
    /// What it was asked, in order.
    pub(crate) asked: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a DNS server; `answers` makes of each question what is sent back.
    pub(crate) fn names(
        space: &Space,
        host: IpAddr,
        answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Server {
        let socket = space.inside(|| bound(|| UdpSocket::bind((host, 53))));
        socket.set_read_timeout(Some(TURN)).expect("a timeout");
        Server::start(move |asked| {
            let mut buffer = [0; 600];
            let (length, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => panic!("receive a question: {error}"),
            };
            asked.lock().expect("nobody panicked").push(buffer[..length].to_vec());
            for answer in answers(&buffer[..length]) {
                socket.send_to(&answer, from).expect("send an answer");
            }
        })
    }

    /// Starts a web server that says `response` to whatever is asked; `None` says nothing and
    /// keeps the connection.
    pub(crate) fn pages(space: &Space, host: IpAddr, response: Option<&'static str>) -> Server {
        let address = SocketAddr::new(host, 80);
        let listener = space.inside(|| bound(|| TcpListener::bind(address)));
        SockRef::from(&listener).set_read_timeout(Some(TURN)).expect("a timeout");
        let mut kept = Vec::new();
        Server::start(move |asked| {
            let mut connection = match listener.accept() {
                Ok((connection, _)) => connection,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => panic!("accept a connection: {error}"),
            };
            asked.lock().expect("nobody panicked").push(request(&mut connection));
            match response {
                // The probe may have judged the beginning and closed already.
                Some(response) => drop(connection.write_all(response.as_bytes())),
                None => kept.push(connection),
            }
        })
    }

    fn start(mut turn: impl FnMut(&Mutex<Vec<Vec<u8>>>) + Send + 'static) -> Server {
        let (asked, stop) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
        let (log, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                turn(&log);
            }
        });
        Server { asked, stop, thread: Some(thread) }
    }

    /// How often it was asked.
    pub(crate) fn times(&self) -> usize {
        self.asked.lock().expect("nobody panicked").len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            if !thread::panicking() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Binds as soon as the address is free: a program that another test starts at this moment holds
/// a copy of a former server's socket until it runs.
fn bound<S>(bind: impl Fn() -> io::Result<S>) -> S {
    let begun = Instant::now();
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            result => return result.expect("bind"),
        }
    }
}

fn request(connection: &mut TcpStream) -> Vec<u8> {
    connection.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let (mut request, mut piece) = (Vec::new(), [0; 1_000]);
    while !request.ends_with(b"\r\n\r\n") {
        match connection.read(&mut piece) {
            Ok(length @ 1..) => request.extend_from_slice(&piece[..length]),
            Ok(0) | Err(_) => break,
        }
    }
    request
}

/// The answer to a question, with a response code and perhaps one address of the type asked for.
pub(crate) fn answer(question: &[u8], code: u8, address: Option<IpAddr>) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    if let Some(address) = address {
        bytes[7] = 1;
        let data = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let asked = &question[question.len() - 4..];
        bytes.extend([0xc0, 12]);
        bytes.extend(asked);
        bytes.extend([0, 0, 0, 60, 0, u8::try_from(data.len()).expect("short")]);
        bytes.extend(data);
    }
    bytes
}
