//! TEMPORARY until serve is there.
#![allow(missing_docs, clippy::all)]
use anywan_core::{api::*, config::Config};
use tokio::sync::{broadcast, mpsc};
#[derive(Debug)] pub struct Reloaded { pub changed: bool }
#[derive(Debug)] pub enum RequestKind { Status, Plan(Option<Box<Config>>), Reload, Down }
#[derive(Debug)] pub struct Reply(());
impl Reply { pub fn status(self, s: Status) {drop(s)} pub fn plan(self, p: Plan) {drop(p)} pub fn reload(self, r: Result<Reloaded, String>) {drop(r)} pub fn down(self, b: bool) {drop(b)} }
#[derive(Debug)] pub struct Request { pub kind: RequestKind, pub reply: Reply }
#[derive(Debug)] pub struct Server(std::path::PathBuf);
impl Server { pub fn start(p: &std::path::Path, _t: mpsc::Sender<Request>, _n: broadcast::Sender<Notice>) -> anyhow::Result<Server> { std::mem::forget(_t); std::fs::write(p, "")?; Ok(Server(p.into())) } pub async fn stop(self) { std::fs::remove_file(self.0).ok(); } }
