//! Limits on new tickets per client address, per server and per user. They count the stored tickets, so they apply
//! across all processes and survive restarts.

use std::net::{IpAddr, Ipv6Addr};

use waypost_core::id::{EndUserId, base32};
use waypost_core::secret::SecretKey;
use waypost_core::server::Server;
use waypost_core::ticket::{MAX_PER_DAY, MAX_UNKNOWN_PER_DAY};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::ticket::{self as store, Opener};
use waypost_store::{Conn, Tx, system};

pub use crate::limits::TicketLimits;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The limits of a new ticket, and the data that they are checked against.
pub(crate) struct LimitCheck<'a> {
    pub server: &'a Server,
    /// The hash of the client's network, from [`hash_network`]. `None` if a token identifies the user.
    pub client: Option<&'a str>,
    pub limits: TicketLimits,
    pub now: Timestamp,
}

/// Returns the hash of a client's network for storage: a keyed hash, which does not reveal the address without the key.
pub(crate) fn hash_network(secret: &SecretKey, address: IpAddr) -> String {
    let network = match address.to_canonical() {
        // A client with one IPv6 address usually has the whole /64 network.
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    };
    base32(&secret.sign("client network of a ticket", network.to_string().as_bytes())[..16])
}

impl LimitCheck<'_> {
    /// Checks the limits per client address and server without a transaction, so that a flood of tickets does not block
    /// the writer.
    pub(crate) async fn peek(&self, conn: &mut Conn) -> Result<()> {
        if let Some(client) = self.client {
            let count = system::count_tickets_from_network(conn, client, self.now.plus(-HOUR_MS)).await?;
            self.check_address_limit(count)?;
        }
        self.check_server_limit(conn).await
    }

    /// Checks the limits of the ticket that `tx` is about to insert. Must be called with the lock of the organisation's
    /// ticket numbers held.
    pub(crate) async fn check(&self, tx: &mut Tx, end_user: Option<&EndUserId>) -> Result<()> {
        if let Some(client) = self.client {
            let count = system::lock_and_count_tickets_from_network(tx, client, self.now.plus(-HOUR_MS)).await?;
            self.check_address_limit(count)?;
        }
        self.check_server_limit(tx).await?;
        let (opener, limit, reason) = match end_user {
            Some(id) => (Opener::EndUser(id), MAX_PER_DAY, "user"),
            None => (Opener::Unidentified(&self.server.id), MAX_UNKNOWN_PER_DAY, "unknown_users"),
        };
        let since = self.now.plus(-DAY_MS);
        if store::count_for_opener(tx, &self.server.organization_id, opener, since).await? >= limit {
            let message = "The daily limit of support tickets is reached. The team has received the earlier tickets. \
                           Tell the user to try again tomorrow.";
            return Err(limit_reached(reason, message));
        }
        Ok(())
    }

    fn check_address_limit(&self, count: i64) -> Result<()> {
        if is_reached(count, self.limits.per_address) {
            let message = "Too many support tickets were created from this network within an hour. The team has \
                           received the earlier tickets. Tell the user to try again in an hour, or to contact the \
                           team in another way.";
            return Err(limit_reached("address", message));
        }
        Ok(())
    }

    async fn check_server_limit(&self, conn: &mut Conn) -> Result<()> {
        let (organization, id) = (&self.server.organization_id, &self.server.id);
        let count = store::count_for_server(conn, organization, id, self.now.plus(-HOUR_MS)).await?;
        if is_reached(count, self.limits.per_server) {
            let message = "Too many support tickets were created on this server within an hour. Tell the user to try \
                           again in an hour, or to contact the team in another way.";
            return Err(limit_reached("server", message));
        }
        Ok(())
    }
}

fn is_reached(count: i64, limit: u32) -> bool {
    limit > 0 && count >= i64::from(limit)
}

fn limit_reached(reason: &'static str, message: &str) -> Error {
    metrics::counter!("waypost_tickets_rejected_total", "reason" => reason).increment(1);
    Error::new(Code::RateLimited, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_hash() {
        let secret = SecretKey::new([1; 32]);
        let hash = |address: &str| hash_network(&secret, address.parse().unwrap());
        assert_eq!(hash("2001:db8::1"), hash("2001:db8::ffff:2"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8:0:1::1"));
        assert_eq!(hash("::ffff:192.0.2.7"), hash("192.0.2.7"));
        assert_ne!(hash("192.0.2.8"), hash("192.0.2.7"));
        assert_ne!(hash("192.0.2.7"), hash_network(&SecretKey::new([2; 32]), "192.0.2.7".parse().unwrap()));
    }
}
