//! Notices: whoever changed something says so, and every node that listens looks at once. Nothing depends on
//! them: a server may have no LISTEN, a notice may be lost, and all nodes look by themselves a moment later.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{CONNECT_MOST, Database, Session};
use crate::store::StoreError;

/// How often somebody who listens looks whether that is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// After a connection was lost, or the server was not there.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

impl Session {
    /// Says that something was changed.
    pub fn notify(&mut self) {
        // What goes wrong is nobody's: a server without NOTIFY says so, and goes on.
        drop(self.attempt(async |connection| {
            connection.client.batch_execute("NOTIFY card4e").await.map_err(StoreError::Database)
        }));
    }
}

impl Database {
    /// Calls `heard` for each notice, and when it begins to listen, because one may have been missed; until
    /// `is_over`, or until the server says that it has no LISTEN.
    pub fn listen(
        &self,
        heard: &Arc<dyn Fn() + Send + Sync>,
        is_over: impl Fn() -> bool,
    ) -> Result<(), StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StoreError::Runtime)?;
        while !is_over() {
            let listened = runtime.block_on(self.hear(heard, &is_over));
            if let Err(StoreError::Database(error)) = &listened
                && error.code().is_some()
                && !listened.as_ref().is_err_and(StoreError::is_away)
            {
                return listened;
            }
            for _ in 0..LISTEN_AGAIN.as_millis() / LOOK_EVERY.as_millis() {
                if is_over() {
                    return Ok(());
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Until the connection is lost, or it is over.
    async fn hear(
        &self,
        heard: &Arc<dyn Fn() + Send + Sync>,
        is_over: &impl Fn() -> bool,
    ) -> Result<(), StoreError> {
        let slow = |_| StoreError::DatabaseSlow(CONNECT_MOST);
        if self.config.get_ssl_mode() == SslMode::Disable {
            let connected = timeout(CONNECT_MOST, self.config.connect(NoTls)).await.map_err(slow)?;
            let (client, connection) = connected.map_err(StoreError::Database)?;
            return hear_on(client, connection, heard, is_over).await;
        }
        let tls = MakeRustlsConnect::new((*self.tls).clone());
        let connected = timeout(CONNECT_MOST, self.config.connect(tls)).await.map_err(slow)?;
        let (client, connection) = connected.map_err(StoreError::Database)?;
        hear_on(client, connection, heard, is_over).await
    }
}

async fn hear_on<S, T>(
    client: Client,
    mut connection: tokio_postgres::Connection<S, T>,
    heard: &Arc<dyn Fn() + Send + Sync>,
    is_over: &impl Fn() -> bool,
) -> Result<(), StoreError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tell = Arc::clone(heard);
    let mut lost = tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                tell();
            }
        }
    });
    let listening = timeout(CONNECT_MOST, client.batch_execute("LISTEN card4e")).await;
    listening.map_err(|_| StoreError::DatabaseSlow(CONNECT_MOST))?.map_err(StoreError::Database)?;
    heard();
    while timeout(LOOK_EVERY, &mut lost).await.is_err() {
        if is_over() {
            return Ok(());
        }
    }
    Ok(())
}
