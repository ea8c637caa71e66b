//! Networks: internal bridges with small subnets.
//!
//! A shared container is in the network of its instance. A container with a key, which is for one agent or one session,
//! has its own network with the container's name: it may have secrets of its agent, so its separation from the other
//! containers of the instance must not depend on the firewall of the engine, which may be disabled.

use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};

use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptions;
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};
use waypost_toolbox_proto::ErrorCode;

use super::super::EngineError;
use super::config::network_name;
use super::{DockerEngine, errors, labels};

/// The prefix length of a network's subnet.
const PREFIX: u8 = 28;
/// The maximum number of subnets that are tried. The engine rejects subnets that overlap with other networks.
const MAX_ATTEMPTS: usize = 128;

/// Returns the subnets of a pool in the order in which they are tried for a network. The order depends only on the pool
/// and the network's name. Every subnet is returned once.
pub fn candidates(pool: Ipv4Net, name: &str) -> impl Iterator<Item = Ipv4Net> {
    let bits = u32::from(PREFIX.saturating_sub(pool.prefix_len()));
    let count = if pool.prefix_len() > PREFIX { 0 } else { 1_u64 << bits };
    let digest = Sha256::digest(name.as_bytes());
    let start = digest[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) & count.saturating_sub(1);
    // An odd stride visits every residue of a power of two. A stride close to the golden ratio distributes the attempts
    // evenly, so that a few attempts suffice even if another network covers part of the pool.
    let stride = (count * 40_503 / 65_536) | 1;
    let base = u32::from(pool.network());
    (0..count).map(move |attempt| {
        let index = (start + attempt * stride) & (count - 1);
        // The index is below 2^28, so the shifted value fits.
        let address = base | u32::try_from(index << (32 - PREFIX)).unwrap_or_default();
        Ipv4Net::new_assert(address.into(), PREFIX)
    })
}

/// Whether two networks have an address in common.
fn overlaps(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn subnets(network: &Network) -> Vec<Ipv4Net> {
    let configs = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    configs.filter_map(|config| config.subnet.as_ref()?.parse().ok()).collect()
}

/// Whether the machine itself has an address in a network. Containers could reach the machine's services at this
/// address.
fn has_local_address(network: Ipv4Net) -> bool {
    let is_local = |address: Ipv4Addr| UdpSocket::bind((address, 0)).is_ok();
    // With `net.ipv4.ip_nonlocal_bind`, binding always succeeds. This reserved address is never local.
    !is_local(Ipv4Addr::new(240, 0, 0, 1)) && network.hosts().any(is_local)
}

/// Returns the request for a network. Its containers cannot reach each other if `separate` is set and the engine has a
/// firewall.
fn create_request(
    toolbox_id: &str,
    instance_id: &str,
    name: &str,
    subnet: Ipv4Net,
    separate: bool,
) -> NetworkCreateRequest {
    // Without an address of the host on the bridge, containers do not reach the host's services through it.
    let mut options = HashMap::from([("com.docker.network.bridge.inhibit_ipv4".to_owned(), "true".to_owned())]);
    if separate {
        options.insert("com.docker.network.bridge.enable_icc".into(), "false".into());
    }
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".into()),
        internal: Some(true),
        attachable: Some(false),
        ingress: Some(false),
        enable_ipv6: Some(false),
        ipam: Some(Ipam {
            driver: Some("default".into()),
            config: Some(vec![IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() }]),
            options: None,
        }),
        options: Some(options),
        labels: Some(labels::of_instance(toolbox_id, instance_id)),
        ..NetworkCreateRequest::default()
    }
}

impl DockerEngine {
    /// Returns the networks of this toolbox or of one of its instances.
    pub(super) async fn networks(&self, instance_id: Option<&str>) -> Result<Vec<Network>, EngineError> {
        let options = ListNetworksOptions { filters: Some(labels::filter(self.toolbox_id(), instance_id)) };
        let networks = self.docker().list_networks(Some(options)).await;
        let mut networks = networks.map_err(|error| self.error("list networks", &error))?;
        networks.retain(|network| {
            let instance = network.labels.as_ref().and_then(|labels| labels::instance(self.toolbox_id(), labels));
            instance.is_some_and(|id| instance_id.is_none_or(|wanted| wanted == id))
        });
        Ok(networks)
    }

    /// Creates a network for containers of an instance if it does not exist.
    pub(super) async fn ensure_network(&self, instance_id: &str, name: &str) -> Result<(), EngineError> {
        // The engine accepts two networks with one name, so creation is serialised.
        let _creating = self.inner.network_creation.lock().await;
        let networks = self.networks(None).await?;
        if networks.iter().any(|network| network.name.as_deref() == Some(name)) {
            return Ok(());
        }
        self.check_network_name(name).await?;
        let used: Vec<Ipv4Net> = networks.iter().flat_map(subnets).collect();
        let pool = self.inner.options.network_pool;
        let is_free =
            |subnet: &Ipv4Net| used.iter().all(|other| !overlaps(*subnet, *other)) && !has_local_address(*subnet);
        for subnet in candidates(pool, name).filter(is_free).take(MAX_ATTEMPTS) {
            match self.create_network(instance_id, name, subnet).await {
                Ok(()) => return Ok(()),
                Err(error) if errors::message(&error).is_some_and(|message| message.contains("overlap")) => {}
                Err(error) => return Err(self.error("create the network", &error)),
            }
        }
        Err(EngineError::new(
            ErrorCode::NoCapacity,
            format!("The network pool {pool} has no free subnet"),
            "Remove instances or networks of the machine, or set another `network_pool` for the toolbox.",
        ))
    }

    async fn create_network(
        &self,
        instance_id: &str,
        name: &str,
        subnet: Ipv4Net,
    ) -> Result<(), bollard::errors::Error> {
        let request = create_request(self.toolbox_id(), instance_id, name, subnet, true);
        let error = match self.docker().create_network(request).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if !errors::message(&error).is_some_and(|message| message.contains("inter-container")) {
            return Err(error);
        }
        // The kernel lacks the module `br_netfilter`. Containers of different agents or sessions are never in one
        // network. Only a shared container and its successor are, while one replaces the other.
        tracing::debug!(network = name, "containers in one network can reach each other: br_netfilter is missing");
        let request = create_request(self.toolbox_id(), instance_id, name, subnet, false);
        self.docker().create_network(request).await.map(|_| ())
    }

    /// Fails if a network that this toolbox did not create has this name: the container could be connected to it
    /// instead.
    async fn check_network_name(&self, name: &str) -> Result<(), EngineError> {
        let filters = HashMap::from([("name".to_owned(), vec![format!("^{name}$")])]);
        let networks = self.docker().list_networks(Some(ListNetworksOptions { filters: Some(filters) })).await;
        let networks = networks.map_err(|error| self.error("list networks", &error))?;
        if networks.iter().all(|network| network.name.as_deref() != Some(name)) {
            return Ok(());
        }
        Err(EngineError::new(
            ErrorCode::StartFailed,
            format!("A network with the name {name} exists, and this toolbox did not create it"),
            "Remove the network from the machine.",
        ))
    }

    /// Removes the network of a container that has its own. A failure is only logged: the network is removed with the
    /// instance, or when the daemon starts again.
    pub(super) async fn remove_own_network(&self, container: &str) {
        match self.docker().remove_network(container).await {
            Err(error) if !errors::is_not_found(&error) => {
                tracing::warn!(%error, network = container, "failed to remove the network of a container");
            }
            _ => {}
        }
    }

    /// Removes networks of containers that do not exist. `containers` contains the names of the toolbox's containers.
    pub(super) async fn remove_unused_networks(&self, containers: &[String]) -> Result<(), EngineError> {
        for network in self.networks(None).await? {
            let instance = network.labels.as_ref().and_then(|labels| labels::instance(self.toolbox_id(), labels));
            let shared = instance.map(|id| network_name(&id));
            match network.name {
                Some(name) if Some(&name) != shared.as_ref() && !containers.contains(&name) => {
                    self.remove_own_network(&name).await;
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) async fn remove_networks(&self, instance_id: &str) -> Result<(), EngineError> {
        for network in self.networks(Some(instance_id)).await? {
            let Some(id) = network.id else { continue };
            match self.docker().remove_network(&id).await {
                Err(error) if !errors::is_not_found(&error) => return Err(self.error("remove the network", &error)),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn candidates_are_all_subnets_of_the_pool(address: u32, prefix in 16_u8..=28, id in "ins_[a-z0-9]{12}") {
            let pool = Ipv4Net::new(address.into(), prefix).unwrap().trunc();
            let all: Vec<_> = candidates(pool, &id).collect();
            prop_assert_eq!(all.len(), 1 << (28 - prefix));
            prop_assert!(all.iter().all(|subnet| pool.contains(subnet) && subnet.prefix_len() == 28 && *subnet == subnet.trunc()));
            prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
            prop_assert!(all.into_iter().eq(candidates(pool, &id)));
        }

        #[test]
        fn a_network_over_half_of_the_pool_is_avoided_after_a_few_attempts(id in "ins_[a-z0-9]{12}") {
            let pool: Ipv4Net = "10.213.0.0/16".parse().unwrap();
            let half: Ipv4Net = "10.213.0.0/17".parse().unwrap();
            prop_assert!(candidates(pool, &id).take(4).any(|subnet| !overlaps(subnet, half)));
        }
    }

    #[test]
    fn addresses_of_the_machine_are_found() {
        assert!(has_local_address("127.0.0.0/28".parse().unwrap()));
        assert!(!has_local_address("240.0.0.0/28".parse().unwrap()));
    }

    #[test]
    fn a_pool_that_is_too_small_has_no_subnets() {
        assert_eq!(candidates("10.0.0.0/29".parse().unwrap(), "ins_1").count(), 0);
        assert_eq!(candidates("0.0.0.0/0".parse().unwrap(), "ins_1").take(9).count(), 9);
    }
}
