//! A bridge with a network namespace for each process, so that links can be cut, slowed and made to lose packets.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::command::run;

/// Where the harness itself is. The network exists in a namespace of its own, so any will do.
const BRIDGE: &str = "10.77.0.254/24";

/// A namespace with an address, kept by a process that sleeps in it.
pub struct Host {
    keeper: Child,
    pub address: String,
    name: String,
}

/// What is done to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
    Both,
}

/// Makes the bridge.
///
/// # Errors
/// When this process may not.
pub fn make_bridge() -> anyhow::Result<()> {
    run(&["ip", "link", "set", "lo", "up"])?;
    if run(&["ip", "link", "show", "soak0"]).is_err() {
        run(&["ip", "link", "add", "soak0", "type", "bridge"])?;
        run(&["ip", "addr", "add", BRIDGE, "dev", "soak0"])?;
        run(&["ip", "link", "set", "soak0", "up"])?;
    }
    Ok(())
}

impl Host {
    /// A host number `number` (1 to 200) on the bridge.
    ///
    /// # Errors
    /// When this process may not.
    pub fn create(number: u8) -> anyhow::Result<Self> {
        let keeper = Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run unshare")?;
        let host = Self { keeper, address: format!("10.77.0.{number}"), name: format!("soak{number}") };
        host.wait_until_apart()?;
        let pid = host.keeper.id().to_string();
        run(&["ip", "link", "add", &host.name, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        run(&["ip", "link", "set", &host.name, "master", "soak0", "up"])?;
        host.inside(&["ip", "addr", "add", &format!("{}/24", host.address), "dev", "eth0"])?;
        host.inside(&["ip", "link", "set", "lo", "up"])?;
        host.inside(&["ip", "link", "set", "eth0", "up"])?;
        Ok(host)
    }

    /// `unshare` has to get there first.
    fn wait_until_apart(&self) -> anyhow::Result<()> {
        let own = std::fs::read_link("/proc/self/ns/net")?;
        for _ in 0..500 {
            if std::fs::read_link(format!("/proc/{}/ns/net", self.keeper.id())).is_ok_and(|theirs| theirs != own) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("no network namespace after five seconds")
    }

    /// What a command is to be preceded by to run here.
    pub fn wrapper(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.keeper.id()), "--".to_owned()]
    }

    fn inside(&self, words: &[&str]) -> anyhow::Result<String> {
        let wrapper = self.wrapper();
        let all: Vec<&str> = wrapper.iter().map(String::as_str).chain(words.iter().copied()).collect();
        run(&all)
    }

    fn filter(&self, words: &[&str]) -> anyhow::Result<String> {
        self.inside(&[["iptables", "--wait"].as_slice(), words].concat())
    }

    /// Drops packets between this host and another one.
    ///
    /// # Errors
    /// When the packet filter does not take the rule.
    pub fn cut(&self, other: &str, direction: Direction) -> anyhow::Result<()> {
        if direction != Direction::Out {
            self.filter(&["-A", "INPUT", "-s", other, "-j", "DROP"])?;
        }
        if direction != Direction::In {
            self.filter(&["-A", "OUTPUT", "-d", other, "-j", "DROP"])?;
        }
        Ok(())
    }

    /// Loses this share of what arrives.
    ///
    /// # Errors
    /// When the packet filter does not take the rule.
    pub fn lose(&self, percent: u64) -> anyhow::Result<()> {
        let probability = format!("{:.2}", percent as f64 / 100.0);
        let dice = ["-m", "statistic", "--mode", "random", "--probability", probability.as_str()];
        self.filter(&[["-A", "INPUT", "-i", "eth0"].as_slice(), &dice, &["-j", "DROP"]].concat()).map(drop)
    }

    /// How many packets were dropped since the rules were made.
    ///
    /// # Errors
    /// When the packet filter does not tell.
    pub fn dropped(&self) -> anyhow::Result<u64> {
        let listed = self.filter(&["-L", "-n", "-v", "-x"])?;
        let count = |line: &str| {
            let mut words = line.split_whitespace();
            let packets = words.next()?.parse::<u64>().ok()?;
            (words.nth(1)? == "DROP").then_some(packets)
        };
        Ok(listed.lines().filter_map(count).sum())
    }

    /// Slows down what leaves towards this host.
    ///
    /// # Errors
    /// When there is no token bucket filter.
    pub fn slow(&self, rate: &str) -> anyhow::Result<()> {
        let shape = ["root", "tbf", "rate", rate, "burst", "16k", "latency", "400ms"];
        run(&[["tc", "qdisc", "add", "dev", &self.name].as_slice(), &shape].concat()).map(drop)
    }

    /// How many packets had to wait or were dropped by [`Host::slow`].
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn slowed(&self) -> anyhow::Result<u64> {
        let shown = run(&["tc", "-s", "qdisc", "show", "dev", &self.name])?;
        let after = |word: &str| {
            let rest = shown.split(word).nth(1)?;
            rest.split(|character: char| !character.is_ascii_digit()).find(|text| !text.is_empty())?.parse::<u64>().ok()
        };
        Ok(after("dropped").unwrap_or(0) + after("overlimits").unwrap_or(0))
    }

    /// Everything passes again.
    ///
    /// # Errors
    /// When the packet filter does not forget its rules.
    pub fn mend(&self) -> anyhow::Result<()> {
        self.filter(&["-F"])?;
        let _ = run(&["tc", "qdisc", "del", "dev", &self.name, "root"]);
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        // The kernel takes the pair of interfaces away with the namespace, but in its own time.
        let _ = run(&["ip", "link", "del", &self.name]);
    }
}
