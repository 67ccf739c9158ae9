//! Answers every request with the same reply, on one thread: `hello ADDR:PORT`.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::any;
use axum::serve::ListenerExt;

/// What `BankCard4EVerification` answers when everything fits.
const REPLY: &str = r#"{"Response":{"Result":"0","Description":"认证通过","RequestId":"6f1c1f0a-2d3b-4f6e-8a54-1c8a4f2f8a11"}}"#;

fn main() -> std::io::Result<()> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4480".into());
    let reply = || async { ([(CONTENT_TYPE, "application/json")], REPLY) };
    let router = Router::new().route("/", any(reply)).fallback(any(reply));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(at).await?;
        let listener = listener.tap_io(|socket| _ = socket.set_nodelay(true));
        axum::serve(listener, router).await
    })
}
