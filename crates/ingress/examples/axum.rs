//! An HTTP server with axum: every handler gets the interface, and `/admin` answers on one interface only.
//!
//! `cargo run --example axum -- '[::]:8080' lo`, then `curl localhost:8080` and `curl localhost:8080/admin`.
#![allow(clippy::print_stdout, reason = "an example")]

use std::io;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::IncomingStream;
use ingress_interface::Ingress;
use tokio::net::TcpListener;

/// The interface of a connection, for the handlers.
#[derive(Debug, Clone, Copy)]
struct Arrived(Option<Ingress>);

impl Connected<IncomingStream<'_, TcpListener>> for Arrived {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Arrived {
        // An unknown interface is not a trusted one.
        Arrived(ingress_interface::of(stream.io()).ok().flatten())
    }
}

async fn whence(ConnectInfo(Arrived(ingress)): ConnectInfo<Arrived>) -> String {
    ingress.map_or_else(|| "unknown\n".to_owned(), |ingress| format!("{ingress}\n"))
}

async fn admin(
    State(trusted): State<String>,
    ConnectInfo(Arrived(ingress)): ConnectInfo<Arrived>,
) -> (StatusCode, &'static str) {
    let name = ingress.filter(|ingress| ingress.evidence.is_observed()).and_then(|ingress| ingress.name);
    if name.is_some_and(|name| name == *trusted) {
        (StatusCode::OK, "welcome\n")
    } else {
        (StatusCode::FORBIDDEN, "not on this interface\n")
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let trusted = arguments.next().unwrap_or_else(|| "lo".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let app = Router::new().route("/", get(whence)).route("/admin", get(admin)).with_state(trusted);
    axum::serve(listener, app.into_make_service_with_connect_info::<Arrived>()).await
}
