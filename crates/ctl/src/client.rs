//! Talks HTTP to the daemon over its unix socket: one connection for each request. Everything has
//! a time limit but the wait for the next event.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anywan_core::api::{API_VERSION, Problem};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::failure::Failure;

/// How long a daemon may take to accept: it does so at once, unless its queue is full.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Between two attempts while its queue is full.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// How long an answer may take: longer than the daemon itself waits for its loop.
const ANSWER_MAX: Duration = Duration::from_secs(45);

/// The largest answer; the status of 62 WANs has 40 kB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where the daemon is.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

/// An answer in JSON.
#[derive(Debug)]
pub struct Answer {
    /// As it came.
    pub text: String,
    /// What it says.
    pub value: Value,
}

impl Answer {
    /// What it says, in the version of the API that we know.
    ///
    /// # Errors
    /// When the daemon speaks another version.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let version = &self.value["version"];
        if *version != API_VERSION {
            let what = format!(
                "anywand speaks version {version} of the API, this anywan version {API_VERSION}"
            );
            let hint = "install the same version of both, and restart the service";
            return Err(Failure::failed(what, hint));
        }
        T::deserialize(&self.value).map_err(|error| {
            let hint = "are anywan and anywand of the same version?";
            Failure::failed(format!("understand the answer of anywand: {error}"), hint)
        })
    }
}

impl Client {
    /// A client of the daemon on `socket`. Opens nothing yet.
    pub fn new(socket: PathBuf) -> Client {
        Client { socket }
    }

    /// Reads something.
    ///
    /// # Errors
    /// When there is no daemon, it is another one than ours, or it refuses.
    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.exchange(Method::GET, path, Vec::new()).await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn post(&self, path: &str, body: Vec<u8>) -> Result<Answer, Failure> {
        self.exchange(Method::POST, path, body).await
    }

    /// Reads something that comes line by line.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn follow(&self, path: &str) -> Result<Lines, Failure> {
        self.lines(Method::GET, path).await
    }

    /// Asks for something to be done that tells its course line by line, and ends with us.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn begin(&self, path: &str) -> Result<Lines, Failure> {
        self.lines(Method::POST, path).await
    }

    async fn lines(&self, method: Method, path: &str) -> Result<Lines, Failure> {
        let response = self.send(method, path, Vec::new()).await?;
        if response.status() == StatusCode::OK {
            return Ok(Lines { body: response.into_body(), unread: Vec::new() });
        }
        let status = response.status();
        Err(refused(status, &self.read(response).await?.value))
    }

    async fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, Failure> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let answer = self.read(response).await?;
        if status == StatusCode::OK { Ok(answer) } else { Err(refused(status, &answer.value)) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "anywand")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::failed(format!("ask for {path}: {error}"), ""))?;
        let answer = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // Ends with the answer's body, or with the program.
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        match timeout(ANSWER_MAX, answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.broken(&error.to_string())),
            Err(_) => Err(self.silent()),
        }
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, Failure> {
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = match timeout(ANSWER_MAX, body.collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(self.broken("an endless answer"));
            }
            Ok(Err(error)) => return Err(self.broken(&error.to_string())),
            Err(_) => return Err(self.silent()),
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let value = serde_json::from_str(&text).map_err(|_| self.broken("not JSON"))?;
        Ok(Answer { text, value })
    }

    async fn connect(&self) -> Result<UnixStream, Failure> {
        let end = Instant::now() + CONNECT_MAX;
        loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                    sleep(CONNECT_PAUSE).await;
                }
                Err(error) => return Err(self.unreached(&error)),
            }
        }
    }

    fn unreached(&self, error: &io::Error) -> Failure {
        use io::ErrorKind::{
            ConnectionRefused, InvalidInput, NotFound, PermissionDenied, WouldBlock,
        };

        let socket = self.socket.display();
        let kind = error.kind();
        if matches!(kind, NotFound | ConnectionRefused) {
            let what = format!("anywand does not answer on {socket}: {error}");
            let hint = "is the service running? systemctl status anywan; \
                        another socket: --socket PATH";
            return Failure::NoDaemon { what, hint: hint.to_owned() };
        }
        if kind == InvalidInput {
            let text =
                format!("error: {socket} cannot be a socket: {error}\nhint: --socket PATH\n");
            return Failure::Bad { text };
        }
        if kind == PermissionDenied {
            let hint = "run it as root (sudo anywan ...), or as a member of the socket's group";
            return Failure::failed(format!("no permission to talk to anywand on {socket}"), hint);
        }
        let hint = match kind == WouldBlock {
            true => "it is busy with too many clients; its log: journalctl -u anywan",
            false => "another socket: --socket PATH",
        };
        Failure::failed(format!("anywand cannot be reached on {socket}: {error}"), hint)
    }

    fn broken(&self, why: &str) -> Failure {
        Failure::failed(
            format!("no sensible answer on {}: {why}", self.socket.display()),
            "the daemon may just be ending, or something else has this socket; \
             its log: journalctl -u anywan",
        )
    }

    fn silent(&self) -> Failure {
        Failure::failed(
            format!("anywand on {} gave no answer in {ANSWER_MAX:?}", self.socket.display()),
            "its log says what it is busy with: journalctl -u anywan",
        )
    }
}

/// Turns an error's answer into a failure.
fn refused(status: StatusCode, answer: &Value) -> Failure {
    if status == StatusCode::UNPROCESSABLE_ENTITY {
        if let Some(text) = answer["rendered"].as_str() {
            return Failure::Bad { text: format!("{}\n", text.trim_end()) };
        }
    }
    let problem = serde_json::from_value::<Problem>(answer["problems"][0].clone());
    match problem {
        Ok(problem) => Failure::failed(problem.what, problem.hint),
        Err(_) => Failure::failed(
            format!("anywand refuses with status {status}"),
            "are anywan and anywand of the same version? anywan --version; anywand --version",
        ),
    }
}

/// Lines that come as they happen.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    unread: Vec<u8>,
}

impl Lines {
    /// The next line, without its end; `None` when the daemon has ended.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.unread.drain(..=end).collect();
                line.pop();
                return Some(line);
            }
            if self.unread.len() > ANSWER_BYTES_MAX {
                return None;
            }
            // A broken connection ends the lines as an orderly end does.
            let frame = self.body.frame().await?.ok()?;
            if let Some(bytes) = frame.data_ref() {
                self.unread.extend_from_slice(bytes);
            }
        }
    }
}
