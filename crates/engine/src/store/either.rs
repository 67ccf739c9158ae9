//! One text of SQL for SQLite and for a PostgreSQL-wire database, for tables that are asked seldom and by people.
//!
//! Parameters are written `$1`, integers are 64 bits wide, and what the two say differently is not used.

use std::cell::RefCell;
use std::error::Error;

use rusqlite::types::{FromSql as FromFile, ToSql as ToFile, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql as FromShared, IsNull, ToSql as ToShared, Type, to_sql_checked};

use super::StoreError;
use super::postgres::{self, Session};
use super::sqlite;

/// The file of one machine, or the database of several.
pub(super) enum Either {
    /// SQLite.
    File(Connection, &'static sqlite::Schema),
    /// A PostgreSQL-wire database.
    Shared(RefCell<Session>),
}

/// A value of a column.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    Null,
}

/// A statement and its parameters.
pub(super) type Statement = (&'static str, Vec<Value>);

/// A row that was found.
pub(super) enum Found<'a> {
    File(&'a rusqlite::Row<'a>, &'static sqlite::Schema),
    Shared(&'a tokio_postgres::Row),
}

impl Found<'_> {
    /// A column.
    pub(super) fn get<T: FromFile + for<'b> FromShared<'b>>(&self, at: usize) -> Result<T, StoreError> {
        match self {
            Found::File(row, schema) => row.get(at).map_err(|cause| schema.error(cause)),
            Found::Shared(row) => row.try_get(at).map_err(StoreError::Database),
        }
    }

    /// All columns, as they are.
    fn values(&self) -> Result<Vec<Value>, StoreError> {
        let value = |at: usize| match self {
            Found::File(row, schema) => row.get_ref(at).map(Value::from).map_err(|cause| schema.error(cause)),
            Found::Shared(row) => match *row.columns()[at].type_() {
                Type::INT8 => Ok(Value::from(self.get::<Option<i64>>(at)?)),
                Type::INT4 => Ok(Value::from(row.get::<_, Option<i32>>(at).map(i64::from))),
                Type::BOOL => Ok(Value::from(row.get::<_, Option<bool>>(at).map(i64::from))),
                Type::BYTEA => Ok(self.get::<Option<Vec<u8>>>(at)?.map_or(Value::Null, Value::Bytes)),
                _ => Ok(Value::from(self.get::<Option<String>>(at)?.as_deref())),
            },
        };
        let columns = match self {
            Found::File(row, _) => row.as_ref().column_count(),
            Found::Shared(row) => row.len(),
        };
        (0..columns).map(value).collect()
    }
}

impl std::fmt::Debug for Either {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Either::File(_, schema) => f.write_str(schema.file),
            Either::Shared(session) => session.fmt(f),
        }
    }
}

impl Either {
    /// The one row there is, if there is one.
    pub(super) fn one<T>(
        &self,
        sql: &'static str,
        values: Vec<Value>,
        read: impl FnMut(&Found<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.many(sql, values, read)?.into_iter().next())
    }

    /// All rows there are.
    pub(super) fn many<T>(
        &self,
        sql: &'static str,
        values: Vec<Value>,
        mut read: impl FnMut(&Found<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        match self {
            Either::File(db, schema) => {
                let failed = |cause| schema.error(cause);
                let mut find = db.prepare_cached(&of_file(sql)).map_err(failed)?;
                let mut rows = find.query(params_from_iter(&values)).map_err(failed)?;
                let mut found = Vec::new();
                while let Some(row) = rows.next().map_err(failed)? {
                    found.push(read(&Found::File(row, schema))?);
                }
                Ok(found)
            }
            Either::Shared(session) => {
                let rows = session.borrow_mut().read(async |connection| {
                    let find = connection.prepared(sql).await?;
                    connection.client.query(&find, &borrowed(&values)).await
                })?;
                rows.iter().map(|row| read(&Found::Shared(row))).collect()
            }
        }
    }

    /// Changes something; whether anything was changed.
    pub(super) fn run(&self, sql: &'static str, values: Vec<Value>) -> Result<bool, StoreError> {
        self.all(&[(sql, values)])
    }

    /// Changes several things, all or none. When the first statement finds nothing to change, nothing is
    /// changed, and this is `false`.
    pub(super) fn all(&self, statements: &[Statement]) -> Result<bool, StoreError> {
        match self {
            Either::File(db, schema) => {
                let run = || -> rusqlite::Result<bool> {
                    let transaction = db.unchecked_transaction()?;
                    for (at, (sql, values)) in statements.iter().enumerate() {
                        let mut run = transaction.prepare_cached(&of_file(sql))?;
                        if run.execute(params_from_iter(values))? == 0 && at == 0 {
                            return Ok(false);
                        }
                    }
                    transaction.commit()?;
                    Ok(true)
                };
                run().map_err(|cause| schema.error(cause))
            }
            Either::Shared(session) => session.borrow_mut().transaction(async |connection| {
                for (at, (sql, values)) in statements.iter().enumerate() {
                    if execute(connection, sql, values).await? == 0 && at == 0 {
                        return Ok(false);
                    }
                }
                Ok(true)
            }),
        }
    }

    /// Removes one row and gives the number that the statement returns of it.
    pub(super) fn take(&self, sql: &'static str, values: Vec<Value>) -> Result<Option<i64>, StoreError> {
        match self {
            Either::File(db, schema) => {
                let take = db.prepare_cached(&of_file(sql));
                let taken = take.and_then(|mut take| {
                    take.query_row(params_from_iter(&values), |row| row.get(0)).optional()
                });
                taken.map_err(|cause| schema.error(cause))
            }
            Either::Shared(session) => session.borrow_mut().transaction(async |connection| {
                let take = connection.prepared(sql).await.map_err(StoreError::Database)?;
                let taken = connection.client.query_opt(&take, &borrowed(&values)).await;
                Ok(taken.map_err(StoreError::Database)?.map(|row| row.get(0)))
            }),
        }
    }

    /// The rows of a table of which one column is greater than a value, or all; that column is the first.
    pub(super) fn rows(&self, page: &'static str, after: &Value) -> Result<Vec<Vec<Value>>, StoreError> {
        self.many(page, vec![after.clone()], |row| row.values())
    }

    /// Adds rows, all or none; where there are several nodes, all of them leave before the first is answered.
    pub(super) fn put_all(&self, put: &'static str, rows: &[Vec<Value>]) -> Result<(), StoreError> {
        match self {
            Either::File(db, schema) => {
                let run = || -> rusqlite::Result<()> {
                    let transaction = db.unchecked_transaction()?;
                    let mut run = transaction.prepare_cached(&of_file(put))?;
                    for row in rows {
                        run.execute(params_from_iter(row))?;
                    }
                    drop(run);
                    transaction.commit()
                };
                run().map_err(|cause| schema.error(cause))
            }
            Either::Shared(session) => {
                session.borrow_mut().transaction(async |connection| execute_all(connection, put, rows).await)
            }
        }
    }

    /// Puts the rows of a table into the other database's table of that name, in pages by its key; those that
    /// are there already stay. Gives how many rows there are here.
    pub(super) fn copy_table(&self, to: &Either, table: &Table) -> Result<u64, StoreError> {
        let (mut copied, mut after) = (0, Value::Null);
        loop {
            let rows = self.rows(table.page, &after)?;
            let Some(last) = rows.last() else { return Ok(copied) };
            after = last[0].clone();
            copied += rows.len() as u64;
            to.put_all(table.put, &rows)?;
        }
    }
}

/// How a table is copied.
pub(super) struct Table {
    /// The rows after a key, the key first, a thousand of them.
    pub(super) page: &'static str,
    /// Adds a row if it is not there.
    pub(super) put: &'static str,
}

async fn execute(
    connection: &postgres::Connection,
    sql: &'static str,
    values: &[Value],
) -> Result<u64, StoreError> {
    let run = async {
        let run = connection.prepared(sql).await?;
        connection.client.execute(&run, &borrowed(values)).await
    };
    run.await.map_err(StoreError::Database)
}

/// One statement with many values.
async fn execute_all(
    connection: &postgres::Connection,
    sql: &'static str,
    rows: &[Vec<Value>],
) -> Result<(), StoreError> {
    let statement = connection.prepared(sql).await.map_err(StoreError::Database)?;
    let client = &connection.client;
    let run = rows.iter().map(|row| Box::pin(client.execute_raw(&statement, row)));
    postgres::together(run).await.map_err(StoreError::Database)
}

fn borrowed(values: &[Value]) -> Vec<&(dyn ToShared + Sync)> {
    values.iter().map(|value| value as &(dyn ToShared + Sync)).collect()
}

fn of_file(sql: &str) -> String {
    sql.replace('$', "?")
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Int(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Int(number.into())
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Value {
        number.map_or(Value::Null, Value::Int)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Value {
        text.map_or(Value::Null, Value::from)
    }
}

impl From<[u8; 32]> for Value {
    fn from(bytes: [u8; 32]) -> Value {
        Value::Bytes(bytes.to_vec())
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Value {
        match value {
            ValueRef::Integer(number) => Value::Int(number),
            ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
            ValueRef::Null | ValueRef::Real(_) => Value::Null,
        }
    }
}

impl ToFile for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
            Value::Null => ValueRef::Null,
        }))
    }
}

impl ToShared for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            // SQLite has one kind of whole numbers.
            Value::Int(number) => match *ty {
                Type::BOOL => (*number != 0).to_sql_checked(ty, out),
                Type::INT2 => i16::try_from(*number)?.to_sql_checked(ty, out),
                Type::INT4 => i32::try_from(*number)?.to_sql_checked(ty, out),
                _ => number.to_sql_checked(ty, out),
            },
            Value::Text(text) => text.to_sql_checked(ty, out),
            Value::Bytes(bytes) => bytes.to_sql_checked(ty, out),
            Value::Null => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
