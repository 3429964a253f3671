//! The paths for what people do by hand: taking WANs out of service, and drills. A drill's answer
//! comes line by line and lasts as long as the drill; whoever closes the connection ends both.

use std::time::Duration;

use anywan_core::api::{DrillLine, Problem};
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::routes::{Lines, Refusal, Shared, ask, bad_query, respond};
use super::{Answer, RequestKind};

/// Lines that whoever follows a drill may lag behind: a drill has some tens.
const LINES_MAX: usize = 256;
/// How long a drill may last, in seconds: long enough to be noticed dead, and no outage that
/// somebody forgets.
const SECONDS: std::ops::RangeInclusive<u64> = 5..=300;

#[derive(Debug, Deserialize)]
pub(super) struct WanQuery {
    wan: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct DrillQuery {
    wan: String,
    seconds: u64,
}

type Asked<T> = Result<Query<T>, QueryRejection>;

pub(super) async fn drain(State(shared): State<Shared>, query: Asked<WanQuery>) -> Response {
    set_drained(&shared, query, true).await
}

pub(super) async fn undrain(State(shared): State<Shared>, query: Asked<WanQuery>) -> Response {
    set_drained(&shared, query, false).await
}

async fn set_drained(shared: &Shared, query: Asked<WanQuery>, drained: bool) -> Response {
    match query {
        Ok(Query(WanQuery { wan })) => {
            respond(ask(shared, RequestKind::Drain { wan, drained }).await)
        }
        Err(rejection) => bad_query(&rejection),
    }
}

pub(super) async fn plan_drill(State(shared): State<Shared>, query: Asked<WanQuery>) -> Response {
    match query {
        Ok(Query(WanQuery { wan })) => respond(ask(&shared, RequestKind::PlanDrill(wan)).await),
        Err(rejection) => bad_query(&rejection),
    }
}

pub(super) async fn drill(State(shared): State<Shared>, query: Asked<DrillQuery>) -> Response {
    let DrillQuery { wan, seconds } = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return bad_query(&rejection),
    };
    if !SECONDS.contains(&seconds) {
        let what = format!("a drill cannot last {seconds} s");
        let hint = "5 s to 5 minutes";
        return Refusal::new("drill.span", "seconds", what, hint).with(StatusCode::BAD_REQUEST);
    }
    let (lines, told) = mpsc::channel(LINES_MAX);
    let span = Duration::from_secs(seconds);
    match ask(&shared, RequestKind::Drill { wan, span, lines }).await {
        Ok(Answer::Drill(Ok(()))) => {
            let kind = [(header::CONTENT_TYPE, "application/jsonl")];
            (kind, Body::from_stream(Lines::of(told, line))).into_response()
        }
        other => respond(other),
    }
}

fn line(line: DrillLine) -> Bytes {
    let mut text = serde_json::to_vec(&line).expect("a line is made of strings and a number");
    text.push(b'\n');
    text.into()
}

/// A refusal that the loop has worded.
pub(super) fn refusal(problem: &Problem) -> Response {
    let status = match problem.code.as_str() {
        "wan.unknown" => StatusCode::NOT_FOUND,
        _ => StatusCode::CONFLICT,
    };
    let Problem { code, at, what, hint } = problem;
    Refusal::new(code, at, what, hint).with(status)
}
