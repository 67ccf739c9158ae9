//! Work that one node does at a time: an import, a rotation of keys, an erasure. Whoever does it holds a row of
//! `lease`, and goes on holding it in each transaction of that work: after a crash it is free again soon.

use super::{Connection, Schema};
use crate::store::StoreError;

/// The table.
pub const LEASES: Schema = Schema {
    part: "lease",
    versions: &["
    CREATE TABLE lease (
        name   TEXT PRIMARY KEY,
        holder TEXT NOT NULL,
        until  TIMESTAMPTZ NOT NULL   -- by the database's clock
    )"],
};

/// Takes a job for half a minute, or goes on holding it, in the transaction under way. `false`: somebody else
/// has it.
pub async fn hold(connection: &Connection, name: &str, holder: &str) -> Result<bool, StoreError> {
    let take = "INSERT INTO lease VALUES ($1, $2, now() + INTERVAL '30 seconds') ON CONFLICT (name)
        DO UPDATE SET holder = excluded.holder, until = excluded.until
        WHERE lease.holder = excluded.holder OR lease.until < now()";
    let run = async {
        let take = connection.prepared(take).await?;
        connection.client.execute(&take, &[&name, &holder]).await
    };
    Ok(run.await.map_err(StoreError::Database)? == 1)
}

/// Lets others have the job.
pub async fn give_back(connection: &Connection, name: &str, holder: &str) -> Result<(), StoreError> {
    let give_back = "DELETE FROM lease WHERE name = $1 AND holder = $2";
    connection.client.execute(give_back, &[&name, &holder]).await.map(drop).map_err(StoreError::Database)
}
