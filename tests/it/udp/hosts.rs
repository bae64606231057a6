//! A tracker with several addresses, and clients on other hosts (rules U2, U4).

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::{IH, STARTED};
use crate::harness::net::{self, Host, Network};
use crate::harness::udp::{Announce, Client, connect};
use crate::harness::{Mika, free_port};

const PORT: u16 = 34_000;

/// A tracker on all addresses of a host, which has a second one of each family; and other hosts.
struct Stage {
    mika: Mika,
    tracker: Host,
    others: Vec<Host>,
    // Last, when it is empty.
    _network: Network,
}

const SECOND_V4: &str = "10.77.0.200";
const SECOND_V6: &str = "fd00:77::200";

// === impl Stage ===

impl Stage {
    fn new(others: usize, udp: &serde_json::Value) -> Self {
        let mut network = Network::new();
        let tracker = network.host();
        for (address, length) in [(SECOND_V4, 24), (SECOND_V6, 64)] {
            let mut command = net::command_in(&tracker.namespace, "ip");
            command.args([
                "address",
                "add",
                &format!("{address}/{length}"),
                "dev",
                "eth0",
            ]);
            if length == 64 {
                command.arg("nodad");
            }
            assert!(command.status().expect("ip starts").success());
        }
        let others = (0..others).map(|_| network.host()).collect();
        let http = SocketAddr::new(tracker.v4.into(), PORT);
        let mut config = json!({
            "mode": "public",
            "udp": { "listen": [format!("0.0.0.0:{PORT}"), format!("[::]:{PORT}")] },
        });
        for (key, value) in udp.as_object().expect("settings") {
            config["udp"][key] = value.clone();
        }
        let mut mika = Mika::prepare_in(&tracker, http, &config);
        mika.run();
        Self {
            mika,
            tracker,
            others,
            _network: network,
        }
    }

    /// Runs `act` on another host, with a client from there to that address of the tracker.
    fn on<T: Send>(&self, host: usize, hit: IpAddr, act: impl FnOnce(&Client) -> T + Send) -> T {
        let host = &self.others[host];
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                net::enter(&host.namespace);
                let own: IpAddr = if hit.is_ipv4() {
                    host.v4.into()
                } else {
                    host.v6.into()
                };
                act(&Client::at(own, SocketAddr::new(hit, PORT)))
            });
            thread.join().expect("the client's thread")
        })
    }
}

#[test]
fn replies_come_from_the_address_of_the_request() {
    let mut stage = Stage::new(2, &json!({}));
    let addresses: [IpAddr; 4] = [
        stage.tracker.v4.into(),
        SECOND_V4.parse().expect("an address"),
        stage.tracker.v6.into(),
        SECOND_V6.parse().expect("an address"),
    ];
    for (number, hit) in addresses.into_iter().enumerate() {
        // The client itself checks where each reply comes from.
        let come = stage.on(0, hit, |client| {
            let it = Announce::new(client.connect(), [number as u8; 20]);
            client.announce(&it).leechers
        });
        assert_eq!(come, 1, "{hit}");
        let found = stage.on(1, hit, |client| {
            let it = Announce {
                event: STARTED,
                ..Announce::new(client.connect(), [number as u8; 20])
            };
            client.announce(&it).peers
        });
        let other = &stage.others[0];
        let expected: IpAddr = if hit.is_ipv4() {
            other.v4.into()
        } else {
            other.v6.into()
        };
        assert_eq!(found, [SocketAddr::new(expected, 6881)], "{hit}");
    }
    assert_eq!(stage.mika.stop(), 0);
}

/// A connect needs no proof of an address, so it is answered only so often; another network's
/// connects, and requests with an id, are not held up by that.
#[test]
fn connects_and_errors_of_a_network_are_limited() {
    const LIMIT: usize = 20;
    let stage = Stage::new(1, &json!({ "connect_limit": LIMIT, "error_limit": LIMIT }));
    let hit: IpAddr = stage.tracker.v4.into();
    stage.on(0, hit, |client| {
        let id = client.connect();
        let good = Announce::new(id, IH);
        let bad = Announce::new(id ^ 1, IH).packet();
        for (kind, packet) in [("connects", connect(7)), ("errors", bad)] {
            let rounds = 10 * LIMIT;
            let begun = crate::harness::now();
            for _ in 0..rounds {
                client.send(&packet);
            }
            // The last answer: announces with an id are always answered, after those before them.
            client.send(&good.packet());
            let mut answers = 0;
            while client.receive().expect("the announce's reply")[3] != 1 {
                answers += 1;
            }
            let seconds = begun.elapsed().as_secs() as usize + 2;
            assert!(
                answers > 0 && answers <= LIMIT * seconds,
                "{answers} {kind}"
            );
            assert!(answers < rounds, "{kind}: all were answered");
            assert_eq!(client.announce(&good).leechers, 1);
        }
    });
    // The other family's network has a limit of its own.
    let id = stage.on(0, stage.tracker.v6.into(), |client| {
        client.set_timeout(Duration::from_secs(20));
        client.connect()
    });
    assert_ne!(id, 0);
}

/// IPv4 on an IPv6 socket would be handed out as an IPv6 peer: it has a socket of its own.
#[test]
fn an_ipv4_client_is_one_also_beside_an_ipv6_socket() {
    let port = free_port().port();
    let listen = json!([format!("[::]:{port}"), format!("0.0.0.0:{port}")]);
    let http = SocketAddr::from(([127, 0, 0, 1], port));
    let config = json!({ "mode": "public", "udp": { "listen": listen } });
    let mut mika = Mika::prepare_on(http, &config);
    mika.run();
    let client = Client::new(SocketAddr::from(([127, 4, 5, 6], port)));
    let it = Announce::new(client.connect(), IH);
    client.announce(&it.peer(1));
    let length = client.exchange(&it.packet()).len();
    assert_eq!(length, 20 + 6);
    let six = Client::new(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
    let it = Announce::new(six.connect(), IH);
    six.announce(&it.peer(2));
    assert_eq!(six.exchange(&it.packet()).len(), 20 + 18);
}
