//! The way to a server: by the redis crate over TCP, TLS or a Unix socket, or what the caller provides (feature
//! `contract`).

use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, Pipeline, RedisError, Value};
use tokio::time::timeout;

/// Opens connections to servers.
#[async_trait]
pub trait RedisDial: Send + Sync + 'static {
    /// Connects to a server and logs in. The caller limits the time.
    ///
    /// # Errors
    /// The server can't be reached, or refuses the login or the database.
    async fn dial(&self, server: ConnectionInfo) -> Result<Box<dyn RedisWire>, RedisError>;
}

/// A connection, on which several tasks send commands at once.
#[async_trait]
pub trait RedisWire: Send + Sync + 'static {
    /// Sends commands; returns their replies, error replies included. None if these do not arrive within `limit`.
    ///
    /// # Errors
    /// The connection is broken.
    async fn send(
        &self,
        commands: &Pipeline,
        limit: Duration,
    ) -> Result<Option<Vec<Value>>, RedisError>;
}

/// Connects by the redis crate.
pub(super) struct RedisClient;

/// A connection of the redis crate.
struct ClientWire(MultiplexedConnection);

#[async_trait]
impl RedisDial for RedisClient {
    async fn dial(&self, server: ConnectionInfo) -> Result<Box<dyn RedisWire>, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let connection = Client::open(server)?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Box::new(ClientWire(connection)))
    }
}

#[async_trait]
impl RedisWire for ClientWire {
    async fn send(
        &self,
        commands: &Pipeline,
        limit: Duration,
    ) -> Result<Option<Vec<Value>>, RedisError> {
        // A clone is a handle to the same connection.
        let mut connection = self.0.clone();
        let sent = connection.send_packed_commands(commands, 0, commands.len());
        timeout(limit, sent).await.ok().transpose()
    }
}
