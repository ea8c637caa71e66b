//! How many tickets are opened: per client address, per server, and per user. The tickets themselves are counted, so the limits
//! hold for all processes together, and after a restart.

use std::net::{IpAddr, Ipv6Addr};

use waypost_core::id::{EndUserId, base32};
use waypost_core::secret::SecretKey;
use waypost_core::server::Server;
use waypost_core::ticket::{MAX_PER_DAY, MAX_UNKNOWN_PER_DAY};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::ticket::{self as store, Opener};
use waypost_store::{Conn, Tx, system};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The limits of tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketLimits {
    /// Tickets per hour from one client address (from one /64 network of IPv6), on all servers together. Users whom a token
    /// identifies do not count. 0 is no limit.
    pub per_address: u32,
    /// Tickets per hour on one server. 0 is no limit.
    pub per_server: u32,
}

impl Default for TicketLimits {
    fn default() -> Self {
        Self { per_address: 30, per_server: 100 }
    }
}

/// What a new ticket is counted for.
pub(super) struct LimitCheck<'a> {
    pub server: &'a Server,
    /// The network that it comes from, as [`client`] hashes it; `None` if a token identifies the user.
    pub client: Option<&'a str>,
    pub limits: TicketLimits,
    pub now: Timestamp,
}

/// The network of a client address as tickets keep it: a keyed hash, from which nobody without the key learns the address.
pub(super) fn client(secret: &SecretKey, address: IpAddr) -> String {
    let network = match address.to_canonical() {
        // Whoever has one address of IPv6 has 2⁶⁴ of them.
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    };
    base32(&secret.sign("client network of a ticket", network.to_string().as_bytes())[..16])
}

impl LimitCheck<'_> {
    /// Checks the limits without a transaction, so that a flood of tickets does not occupy the writer.
    pub(super) async fn peek(&self, conn: &mut Conn) -> Result<()> {
        if let Some(client) = self.client {
            let count = system::count_tickets_from_network(conn, client, self.now.plus(-HOUR_MS)).await?;
            self.address_limit(count)?;
        }
        self.server_limit(conn).await
    }

    /// Checks the limits for the ticket that `tx` is about to insert. `tx` holds the lock of the organisation's numbers.
    pub(super) async fn check(&self, tx: &mut Tx, end_user: Option<&EndUserId>) -> Result<()> {
        if let Some(client) = self.client {
            let count = system::lock_and_count_tickets_from_network(tx, client, self.now.plus(-HOUR_MS)).await?;
            self.address_limit(count)?;
        }
        self.server_limit(tx).await?;
        let (opener, most, reason) = match end_user {
            Some(id) => (Opener::EndUser(id), MAX_PER_DAY, "user"),
            None => (Opener::Unidentified(&self.server.id), MAX_UNKNOWN_PER_DAY, "unknown_users"),
        };
        let since = self.now.plus(-DAY_MS);
        if store::count_for_opener(tx, &self.server.organization_id, opener, since).await? >= most {
            let message = "Too many support tickets within a day. The team has the ones before; try again tomorrow.";
            return Err(refused(reason, message));
        }
        Ok(())
    }

    fn address_limit(&self, count: i64) -> Result<()> {
        if is_reached(count, self.limits.per_address) {
            let message = "Too many support tickets from this network within an hour. The team has the ones before. Tell the \
                           user to try again in an hour, or to contact the team in another way.";
            return Err(refused("address", message));
        }
        Ok(())
    }

    async fn server_limit(&self, conn: &mut Conn) -> Result<()> {
        let (organization, id) = (&self.server.organization_id, &self.server.id);
        let count = store::count_for_server(conn, organization, id, self.now.plus(-HOUR_MS)).await?;
        if is_reached(count, self.limits.per_server) {
            let message = "This server got too many support tickets within an hour. Tell the user to try again in an hour, or \
                           to contact the team in another way.";
            return Err(refused("server", message));
        }
        Ok(())
    }
}

fn is_reached(count: i64, limit: u32) -> bool {
    limit > 0 && count >= i64::from(limit)
}

fn refused(reason: &'static str, message: &str) -> Error {
    metrics::counter!("waypost_tickets_rejected_total", "reason" => reason).increment(1);
    Error::new(Code::RateLimited, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_hash() {
        let secret = SecretKey::new([1; 32]);
        let hash = |address: &str| client(&secret, address.parse().unwrap());
        assert_eq!(hash("2001:db8::1"), hash("2001:db8::ffff:2"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8:0:1::1"));
        assert_eq!(hash("::ffff:192.0.2.7"), hash("192.0.2.7"));
        assert_ne!(hash("192.0.2.8"), hash("192.0.2.7"));
        assert_ne!(hash("192.0.2.7"), client(&SecretKey::new([2; 32]), "192.0.2.7".parse().unwrap()));
    }
}
