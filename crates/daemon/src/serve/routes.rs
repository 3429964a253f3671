//! The paths of the API: each turns an HTTP request into a request to the loop, and the answer
//! into JSON. Errors are JSON too: `{"problems": […], "rendered": "…"}`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anywan_core::api::Problem;
use anywan_core::config;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::hand;
use super::notices::{Recent, write_lines};
use super::{Answer, Limits, Reply, Request, RequestKind};

/// What the handlers share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    requests: mpsc::Sender<Request>,
    recent: Recent,
    limits: Limits,
    followers: Arc<Semaphore>,
}

/// Everything that is served.
pub(super) fn router(requests: mpsc::Sender<Request>, recent: Recent, limits: Limits) -> Router {
    let followers = Arc::new(Semaphore::new(limits.followers));
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/plan", get(plan).post(plan_for))
        .route("/v1/reload", post(reload))
        .route("/v1/down", post(down))
        .route("/v1/drain", post(hand::drain))
        .route("/v1/undrain", post(hand::undrain))
        .route("/v1/drill", get(hand::plan_drill).post(hand::drill))
        .route("/v1/events", get(events))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Shared { requests, recent, limits, followers })
}

/// Why a request was refused.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    /// What is wrong.
    problems: Vec<Problem>,
    /// The same, for a terminal.
    rendered: String,
}

impl Refusal {
    pub(super) fn new(
        code: &str,
        at: impl Into<String>,
        what: impl Into<String>,
        hint: &str,
    ) -> Refusal {
        let (at, what) = (at.into(), what.into());
        let rendered = format!("error: {what}\n\nhint: {hint}\n");
        let problem = Problem { code: code.to_owned(), at, what, hint: hint.to_owned() };
        Refusal { problems: vec![problem], rendered }
    }

    pub(super) fn with(self, status: StatusCode) -> Response {
        (status, Json(self)).into_response()
    }
}

/// Asks the loop; an answer, or the response that says why there is none.
pub(super) async fn ask(shared: &Shared, kind: RequestKind) -> Result<Answer, Response> {
    let (sender, answer) = oneshot::channel();
    let asked = async {
        let request = Request { kind, reply: Reply(sender) };
        shared.requests.send(request).await.ok()?;
        answer.await.ok()
    };
    match timeout(shared.limits.answer, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => {
            let what = "the daemon is ending";
            let refusal = Refusal::new("api.ending", "anywand", what, "start it again");
            Err(refusal.with(StatusCode::SERVICE_UNAVAILABLE))
        }
        Err(_) => {
            let what = format!("the daemon gave no answer in {:?}", shared.limits.answer);
            let hint = "it is busy; its log says with what";
            let refusal = Refusal::new("api.busy", "anywand", what, hint);
            Err(refusal.with(StatusCode::SERVICE_UNAVAILABLE))
        }
    }
}

pub(super) fn respond(answer: Result<Answer, Response>) -> Response {
    match answer {
        Ok(Answer::Status(status)) => Json(status).into_response(),
        Ok(Answer::Plan(plan)) => Json(plan).into_response(),
        Ok(Answer::Reload(Ok(reloaded))) => Json(reloaded).into_response(),
        Ok(Answer::Reload(Err(rendered))) => {
            let what = "the file is not valid; the old configuration stays in force";
            let hint = "`anywan check FILE` shows what is wrong";
            let refusal = Refusal::new("config.refused", "config", what, hint);
            Refusal { rendered, ..refusal }.with(StatusCode::UNPROCESSABLE_ENTITY)
        }
        Ok(Answer::Drain(Ok(changed))) => {
            Json(serde_json::json!({ "changed": changed })).into_response()
        }
        Ok(Answer::PlanDrill(Ok(plan))) => Json(plan).into_response(),
        Ok(Answer::Drill(Ok(()))) => Json(serde_json::json!({})).into_response(),
        Ok(
            Answer::Drain(Err(problem))
            | Answer::PlanDrill(Err(problem))
            | Answer::Drill(Err(problem)),
        ) => hand::refusal(&problem),
        Ok(Answer::Down { all_out: true }) => Json(serde_json::json!({})).into_response(),
        Ok(Answer::Down { all_out: false }) => {
            let what = "not everything could be taken out";
            let hint = "`anywan status` and the log say what; it is tried again";
            let refusal = Refusal::new("api.not-down", "anywand", what, hint);
            refusal.with(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Err(response) => response,
    }
}

async fn status(State(shared): State<Shared>) -> Response {
    respond(ask(&shared, RequestKind::Status).await)
}

async fn plan(State(shared): State<Shared>) -> Response {
    respond(ask(&shared, RequestKind::Plan(None)).await)
}

async fn reload(State(shared): State<Shared>) -> Response {
    respond(ask(&shared, RequestKind::Reload).await)
}

async fn down(State(shared): State<Shared>) -> Response {
    respond(ask(&shared, RequestKind::Down).await)
}

#[derive(Debug, Deserialize)]
struct PlanQuery {
    /// How the file is called in messages.
    file: Option<String>,
}

async fn plan_for(
    State(shared): State<Shared>,
    query: Result<Query<PlanQuery>, QueryRejection>,
    body: Body,
) -> Response {
    let name = match query {
        Ok(Query(query)) => query.file.unwrap_or_else(|| "configuration".to_owned()),
        Err(rejection) => return bad_query(&rejection),
    };
    let bytes = match read(body, shared.limits).await {
        Ok(bytes) => bytes,
        Err(response) => return response,
    };
    match config::parse_bytes(&bytes) {
        Ok(config) => respond(ask(&shared, RequestKind::Plan(Some(Box::new(config)))).await),
        Err(faults) => {
            let text = String::from_utf8_lossy(&bytes);
            let rendered = config::render(&name, &text, &faults, false);
            let problems = faults.iter().map(config::Fault::problem).collect();
            Refusal { problems, rendered }.with(StatusCode::UNPROCESSABLE_ENTITY)
        }
    }
}

async fn read(body: Body, limits: Limits) -> Result<Bytes, Response> {
    match timeout(limits.body, to_bytes(body, limits.body_bytes)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let what =
                format!("the body is broken off or has more than {} bytes", limits.body_bytes);
            let hint = "no configuration is so large";
            let refusal = Refusal::new("api.too-large", "body", what, hint);
            Err(refusal.with(StatusCode::PAYLOAD_TOO_LARGE))
        }
        Err(_) => {
            let what = format!("the body was not there after {:?}", limits.body);
            let refusal = Refusal::new("api.too-slow", "body", what, "send it faster");
            Err(refusal.with(StatusCode::REQUEST_TIMEOUT))
        }
    }
}

#[derive(Debug, Deserialize)]
struct EventsQuery {
    /// How many of the last notices come first.
    backlog: Option<usize>,
}

async fn events(
    State(shared): State<Shared>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Response {
    let backlog = match query {
        Ok(Query(query)) => query.backlog.unwrap_or(0),
        Err(rejection) => return bad_query(&rejection),
    };
    let Ok(place) = shared.followers.try_acquire_owned() else {
        let what = format!("{} clients follow events already", shared.limits.followers);
        let refusal = Refusal::new("api.too-many", "events", what, "end some of them");
        return refusal.with(StatusCode::SERVICE_UNAVAILABLE);
    };
    let (last, follower) = shared.recent.follow(backlog);
    let (sender, lines) = mpsc::channel(1);
    // Ends when the notices do, or when the client goes and its connection drops `lines`.
    tokio::spawn(async move {
        write_lines(last, follower, sender).await;
        drop(place);
    });
    let kind = [(header::CONTENT_TYPE, "application/jsonl")];
    (kind, Body::from_stream(Lines::of(lines, |line| line))).into_response()
}

/// A body that comes line by line.
pub(super) struct Lines<T> {
    lines: mpsc::Receiver<T>,
    text: fn(T) -> Bytes,
}

impl<T> Lines<T> {
    /// What comes out of a channel, as text.
    pub(super) fn of(lines: mpsc::Receiver<T>, text: fn(T) -> Bytes) -> Lines<T> {
        Lines { lines, text }
    }
}

impl<T> Stream for Lines<T> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let text = self.text;
        self.lines.poll_recv(cx).map(|line| line.map(|line| Ok(text(line))))
    }
}

pub(super) fn bad_query(rejection: &QueryRejection) -> Response {
    let hint = "events?backlog=NUMBER, plan?file=NAME, drain?wan=NAME, undrain?wan=NAME, \
                drill?wan=NAME, and to begin one drill?wan=NAME&seconds=NUMBER";
    Refusal::new("api.bad-query", "query", rejection.body_text(), hint)
        .with(StatusCode::BAD_REQUEST)
}

async fn unknown_path(uri: Uri) -> Response {
    let what = format!("there is nothing at {}", uri.path());
    let hint = "there are /v1/status, /v1/plan, /v1/reload, /v1/drain, /v1/undrain, /v1/drill, \
                /v1/down and /v1/events";
    Refusal::new("api.no-such-path", uri.path(), what, hint).with(StatusCode::NOT_FOUND)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let what = format!("{} cannot be used with {method}", uri.path());
    let hint = "reads are GET; reload, drain, undrain, drill, down and plan of a file are POST";
    Refusal::new("api.wrong-method", uri.path(), what, hint).with(StatusCode::METHOD_NOT_ALLOWED)
}
