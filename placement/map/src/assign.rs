//! The sticky minimum-movement ring builder.
//!
//! A first ring is exact: every disk gets its target number of slots, every row respects the caps of [`Topology::caps`], and
//! which disks meet in a row is as good as random, so that a lost disk is rebuilt from all others. It is made row by row; each
//! zone, then node, then disk gets the floor or the ceiling of its fair part of what is left, so that the rest can always be
//! completed.
//!
//! A ring that exists is changed as little as possible: in each partition at most one slot moves, and only from a disk that
//! has too many to one that has too few, or out of a node or zone that has more of the row than its cap. Building again
//! continues; when nothing moves any more the ring is settled. A chunk thus never has more than one shard away from its homes
//! per epoch. (Only slots of disks that left the map are all filled at once: a row must not name them.)
//!
//! Both are deterministic and part of the system group's state machine: a change of what they return for the same input
//! breaks agreement between replicas of different builds. `the_builder_never_changes` in the tests guards that.

use placement_types::Profile;

use crate::cluster_map::Ring;
use crate::mix::mix;
use crate::topology::{Caps, Topology};

/// The next ring: of `partitions` rows if there is none yet, otherwise one step from `previous`.
pub fn build(partitions: usize, profile: Profile, topology: &Topology, previous: Option<&Ring>) -> Ring {
    let width = topology.row_width(profile);
    if width == 0 {
        return Ring { rows: vec![Vec::new(); previous.map_or(partitions, |ring| ring.rows.len())] };
    }
    match previous {
        Some(ring) if !ring.rows.is_empty() => Step::new(profile, topology, ring).run(),
        _ => first_ring(partitions, width, topology, topology.caps(profile)),
    }
}

fn first_ring(partitions: usize, width: usize, topology: &Topology, caps: Caps) -> Ring {
    let mut disks_left = topology.targets(partitions, width, caps);
    let mut nodes_left = vec![0u64; topology.nodes().len()];
    let mut zones_left = vec![0u64; topology.zones().len()];
    for (disk, left) in topology.disks().iter().zip(&disks_left) {
        nodes_left[disk.node] += left;
        zones_left[disk.zone] += left;
    }
    let all_zones: Vec<usize> = (0..topology.zones().len()).collect();
    let mut rows = Vec::with_capacity(partitions);
    for partition in 0..partitions {
        let rows_left = (partitions - partition) as u64;
        let seed = (partition as u64) << 2;
        let mut row = Vec::with_capacity(width);
        for (zone, zone_slots) in deal(width as u64, &all_zones, &mut zones_left, rows_left, seed) {
            for (node, node_slots) in deal(zone_slots, &topology.zones()[zone].nodes, &mut nodes_left, rows_left, seed + 1) {
                let disks = deal(node_slots, &topology.nodes()[node].disks, &mut disks_left, rows_left, seed + 2);
                row.extend(disks.into_iter().map(|(disk, _)| disk));
            }
        }
        row.sort_by_cached_key(|disk| (mix(seed + 3, topology.disks()[*disk].id.as_u128()), *disk));
        rows.push(row.into_iter().map(|disk| topology.disks()[disk].id).collect());
    }
    Ring { rows }
}

/// Deals `count` slots of one row to holders with `left[holder]` slots left to fill in `rows_left` rows. Everybody gets the
/// floor or the ceiling of `left / rows_left`; who gets the ceiling is drawn, with odds by the remainder. Whatever the draw,
/// `left` stays within what the remaining rows can take (see the module).
fn deal(count: u64, holders: &[usize], left: &mut [u64], rows_left: u64, seed: u64) -> Vec<(usize, u64)> {
    let mut dealt: Vec<(usize, u64)> = holders.iter().map(|holder| (*holder, left[*holder] / rows_left)).collect();
    let extra = count - dealt.iter().map(|(_, slots)| slots).sum::<u64>();
    let mut draw: Vec<(u64, usize)> = dealt
        .iter()
        .enumerate()
        .filter(|(_, (holder, _))| !left[*holder].is_multiple_of(rows_left))
        .map(|(index, (holder, _))| {
            let lot = mix(seed, *holder as u128) >> 32;
            (lot * (left[*holder] % rows_left), index)
        })
        .collect();
    draw.sort_unstable_by(|a, b| b.cmp(a));
    assert!(draw.len() as u64 >= extra, "remainders add up to the slots that floors leave");
    for (_, index) in draw.into_iter().take(usize::try_from(extra).expect("less than a row")) {
        dealt[index].1 += 1;
    }
    dealt.retain(|(_, slots)| *slots > 0);
    for (holder, slots) in &dealt {
        left[*holder] -= slots;
    }
    dealt
}

/// One step from a ring to the next.
struct Step<'a> {
    topology: &'a Topology,
    caps: Caps,
    width: usize,
    /// `None`: the disk left the map.
    rows: Vec<Vec<Option<usize>>>,
    loads: Vec<i64>,
    targets: Vec<i64>,
}

/// A slot's move within its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Move {
    gain: i64,
    lot: u64,
    slot: usize,
    to: usize,
}

impl<'a> Step<'a> {
    fn new(profile: Profile, topology: &'a Topology, ring: &Ring) -> Self {
        let width = topology.row_width(profile);
        let caps = topology.caps(profile);
        let mut rows: Vec<Vec<Option<usize>>> =
            ring.rows.iter().map(|row| row.iter().map(|disk| topology.index_of(*disk)).collect()).collect();
        let mut loads = vec![0; topology.disks().len()];
        for row in &mut rows {
            // A wider profile adds slots, a narrower one drops the last.
            row.resize(width, None);
            row.iter().flatten().for_each(|disk| loads[*disk] += 1);
        }
        let targets = topology.targets(rows.len(), width, caps);
        let targets = targets.into_iter().map(|target| i64::try_from(target).expect("partitions x width is small")).collect();
        Self { topology, caps, width, rows, loads, targets }
    }

    fn run(mut self) -> Ring {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by_cached_key(|partition| (mix(*partition as u64, 1), *partition));
        // Rows that break a rule go first: they have the fewest disks to choose from.
        let mut sound = Vec::with_capacity(order.len());
        for partition in order {
            let gaps = self.rows[partition].iter().filter(|slot| slot.is_none()).count();
            for _ in 0..gaps {
                self.fill_gap(partition);
            }
            if gaps == 0 && !self.move_apart(partition) {
                sound.push(partition);
            }
        }
        // A disk only gives down to its target, so nobody comes to want slots while they move.
        let wanting: Vec<usize> = (0..self.loads.len()).filter(|disk| self.loads[*disk] < self.targets[*disk]).collect();
        for partition in sound {
            self.move_for_balance(partition, &wanting);
        }
        let disks = self.topology.disks();
        Ring { rows: self.rows.into_iter().map(|row| row.into_iter().flatten().map(|disk| disks[disk].id).collect()).collect() }
    }

    fn fill_gap(&mut self, partition: usize) {
        let Some(slot) = self.rows[partition].iter().position(Option::is_none) else { return };
        let legal = (0..self.loads.len()).filter(|to| self.is_legal(partition, slot, *to));
        let lenient = || {
            // Caps hold for whole rows; one that was moved about may have no place left under them.
            let free = (0..self.loads.len()).filter(|to| !self.rows[partition].contains(&Some(*to)));
            free.max_by_key(|to| (-(self.on_node(partition, *to) as i64), self.lack(*to), *to))
        };
        let best = legal.max_by_key(|to| (self.lack(*to), mix(partition as u64, *to as u128), *to)).or_else(lenient);
        if let Some(to) = best {
            self.place(partition, slot, to);
        }
    }

    /// Moves one slot out of a node or zone that has more of the row than its cap.
    fn move_apart(&mut self, partition: usize) -> bool {
        let crowded = |slot: usize| {
            let disk = self.rows[partition][slot].expect("gaps are filled first");
            (self.in_zone(partition, disk) > self.caps.zone, self.on_node(partition, disk) > self.caps.node)
        };
        let mut best: Option<Move> = None;
        for slot in 0..self.width {
            let (zone_crowded, node_crowded) = crowded(slot);
            if !zone_crowded && !node_crowded {
                continue;
            }
            let from = self.rows[partition][slot].expect("gaps are filled first");
            for to in 0..self.loads.len() {
                let (a, b) = (&self.topology.disks()[from], &self.topology.disks()[to]);
                let leaves = (zone_crowded && a.zone != b.zone) || (node_crowded && a.node != b.node);
                if leaves && self.is_legal(partition, slot, to) {
                    best = best.max(Some(self.weigh(partition, slot, from, to)));
                }
            }
        }
        self.make(partition, best)
    }

    /// Moves one slot from a disk with too many to one with too few.
    fn move_for_balance(&mut self, partition: usize, wanting: &[usize]) -> bool {
        let mut best: Option<Move> = None;
        for slot in 0..self.width {
            let from = self.rows[partition][slot].expect("gaps are filled first");
            let over = self.loads[from] - self.targets[from];
            if over <= 0 {
                continue;
            }
            for to in wanting.iter().copied() {
                let under = self.targets[to] - self.loads[to];
                if under <= 0 || (over <= slack(self.targets[from]) && under <= slack(self.targets[to])) {
                    continue;
                }
                let weighed = self.weigh(partition, slot, from, to);
                if Some(weighed) > best && self.is_legal(partition, slot, to) {
                    best = Some(weighed);
                }
            }
        }
        self.make(partition, best)
    }

    /// How much a move helps: by how much, in parts of their targets, the one is over and the other under.
    fn weigh(&self, partition: usize, slot: usize, from: usize, to: usize) -> Move {
        let lot = mix(((partition as u64) << 8) | slot as u64, to as u128);
        Move { gain: self.lack(to) - self.lack(from), lot, slot, to }
    }

    fn lack(&self, disk: usize) -> i64 {
        (self.targets[disk] - self.loads[disk]) * 1024 / self.targets[disk].max(1)
    }

    fn make(&mut self, partition: usize, chosen: Option<Move>) -> bool {
        let Some(Move { slot, to, .. }) = chosen else { return false };
        self.place(partition, slot, to);
        true
    }

    fn place(&mut self, partition: usize, slot: usize, to: usize) {
        if let Some(from) = self.rows[partition][slot].replace(to) {
            self.loads[from] -= 1;
        }
        self.loads[to] += 1;
    }

    /// Whether putting `to` into the slot leaves the row without a disk twice, and no cap broken that was not before.
    fn is_legal(&self, partition: usize, slot: usize, to: usize) -> bool {
        let row = &self.rows[partition];
        if row.contains(&Some(to)) {
            return false;
        }
        let disks = self.topology.disks();
        let same_node = row[slot].is_some_and(|from| disks[from].node == disks[to].node);
        let same_zone = row[slot].is_some_and(|from| disks[from].zone == disks[to].zone);
        (same_node || self.on_node(partition, to) < self.caps.node) && (same_zone || self.in_zone(partition, to) < self.caps.zone)
    }

    /// How many disks of the row are on this disk's node.
    fn on_node(&self, partition: usize, disk: usize) -> usize {
        let disks = self.topology.disks();
        self.rows[partition].iter().flatten().filter(|other| disks[**other].node == disks[disk].node).count()
    }

    fn in_zone(&self, partition: usize, disk: usize) -> usize {
        let disks = self.topology.disks();
        self.rows[partition].iter().flatten().filter(|other| disks[**other].zone == disks[disk].zone).count()
    }
}

/// By how much a disk may be off its target without anything being moved for it: data is not copied for one in a hundred.
fn slack(target: i64) -> i64 {
    (target / 100).max(1)
}

#[cfg(test)]
mod tests;
