//! Faults of real processes, disks and links: what each is called in the catalogue, and what it takes.

use tests_faults::Row;

use crate::episode::Means;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillOne,
    KillTwo,
    KillAll,
    KillGateway,
    CutPowerOfOne,
    CutPowerOfAll,
    PauseOne,
    PauseGateway,
    RestartInTurn,
    /// One node from every other node; gateways still reach it.
    Isolate,
    /// One node from everybody.
    CutOff,
    OneWay,
    /// Two nodes from each other.
    Bridge,
    Flap,
    LosePackets,
    SlowLink,
    /// Everybody from everybody.
    CutAll,
    /// A gateway from all nodes but one.
    CutGateway,
    FlipBits,
    Truncate,
    FailSync,
    LieAboutSync,
    FillDisk,
    OldDisk,
    /// A disk is gone for good; a blank one on another node takes its place.
    ReplaceNode,
    /// A node joins, then another is drained and removed, with a crash in between.
    Turnover,
    /// Everything that a node reads, writes and fsyncs takes a fraction of a second.
    SlowDisk,
    /// What a node asks of its shards is never answered; its own state is on a disk that works.
    HungDisk,
    /// Nothing can be written to the whole file system of a node, and nobody is told.
    FrozenDisk,
    /// A file system without a free inode.
    FillInodes,
    /// A process that may open no further file and no further connection.
    ExhaustDescriptors,
    /// Each of two nodes finds the other's disk in its place.
    SwapDisks,
    /// A node and a copy of its whole disk are started at once.
    CloneNode,
    /// Clocks of nodes in another century, those of gateways wrong by minutes.
    WrongClock,
    /// A gateway from a node that leads metadata groups.
    CutLeader,
    /// What a node is sent arrives at a few hundred bytes a second.
    Drip,
}

impl Fault {
    pub const ALL: &[Fault] = &[
        Fault::KillOne,
        Fault::KillTwo,
        Fault::KillAll,
        Fault::KillGateway,
        Fault::CutPowerOfOne,
        Fault::CutPowerOfAll,
        Fault::PauseOne,
        Fault::PauseGateway,
        Fault::RestartInTurn,
        Fault::Isolate,
        Fault::CutOff,
        Fault::OneWay,
        Fault::Bridge,
        Fault::Flap,
        Fault::LosePackets,
        Fault::SlowLink,
        Fault::CutAll,
        Fault::CutGateway,
        Fault::FlipBits,
        Fault::Truncate,
        Fault::FailSync,
        Fault::LieAboutSync,
        Fault::FillDisk,
        Fault::OldDisk,
        Fault::ReplaceNode,
        Fault::Turnover,
        Fault::SlowDisk,
        Fault::HungDisk,
        Fault::FrozenDisk,
        Fault::FillInodes,
        Fault::ExhaustDescriptors,
        Fault::SwapDisks,
        Fault::CloneNode,
        Fault::WrongClock,
        Fault::CutLeader,
        Fault::Drip,
    ];

    /// The rows of the catalogue that it is to show.
    pub fn rows(self) -> &'static [Row] {
        match self {
            Fault::KillOne => &[Row::P6],
            Fault::KillTwo => &[Row::M6],
            Fault::KillAll => &[Row::M4],
            Fault::KillGateway => &[Row::P4],
            Fault::CutPowerOfOne => &[Row::D1],
            Fault::CutPowerOfAll => &[Row::D2],
            Fault::PauseOne => &[Row::C3, Row::C5],
            Fault::PauseGateway => &[Row::N15],
            Fault::RestartInTurn => &[Row::M15],
            Fault::Isolate | Fault::CutOff => &[Row::N1],
            Fault::OneWay => &[Row::N2],
            Fault::Bridge => &[Row::N3],
            Fault::Flap => &[Row::N4],
            Fault::LosePackets => &[Row::N5],
            Fault::SlowLink => &[Row::N7],
            Fault::CutAll => &[Row::N18],
            Fault::CutGateway => &[Row::N14],
            Fault::FlipBits => &[Row::D5],
            Fault::Truncate => &[Row::D4],
            Fault::FailSync => &[Row::D19],
            Fault::LieAboutSync => &[Row::D3],
            Fault::FillDisk => &[Row::D14, Row::D15],
            Fault::OldDisk => &[Row::D26],
            Fault::ReplaceNode => &[Row::D28],
            Fault::Turnover => &[Row::M2, Row::M8, Row::M10],
            Fault::SlowDisk => &[Row::D21],
            Fault::HungDisk | Fault::FrozenDisk => &[Row::D22],
            Fault::FillInodes | Fault::ExhaustDescriptors => &[Row::D17],
            Fault::SwapDisks => &[Row::D24],
            Fault::CloneNode => &[Row::D27, Row::M1],
            Fault::WrongClock => &[Row::C1, Row::C6, Row::C7],
            Fault::CutLeader => &[Row::N13],
            Fault::Drip => &[Row::N9],
        }
    }

    /// It destroys what was durable: only one disk may suffer from such faults until it is replaced.
    pub fn is_damage(self) -> bool {
        matches!(self, Fault::FlipBits | Fault::Truncate | Fault::LieAboutSync | Fault::OldDisk)
    }

    pub fn is_possible(self, means: Means) -> bool {
        (means.network || !self.needs_network())
            && (means.images || !self.needs_images())
            && (means.clocks || self != Fault::WrongClock)
    }

    /// It needs packet filters.
    fn needs_network(self) -> bool {
        matches!(
            self,
            Fault::Isolate
                | Fault::CutOff
                | Fault::OneWay
                | Fault::Bridge
                | Fault::Flap
                | Fault::LosePackets
                | Fault::SlowLink
                | Fault::CutAll
                | Fault::CutGateway
                | Fault::CutLeader
                | Fault::Drip
        )
    }

    /// It needs file systems of our own.
    fn needs_images(self) -> bool {
        matches!(
            self,
            Fault::CutPowerOfOne
                | Fault::CutPowerOfAll
                | Fault::LieAboutSync
                | Fault::FillDisk
                | Fault::FrozenDisk
                | Fault::FillInodes
                | Fault::SwapDisks
                | Fault::CloneNode
        )
    }

    /// It changes who is part of the cluster, which takes a further disk.
    pub fn needs_disk(self) -> bool {
        matches!(self, Fault::ReplaceNode | Fault::Turnover | Fault::CloneNode)
    }

    /// It lasts until others have taken over, and everything is served before it ends.
    pub fn is_borne(self) -> bool {
        matches!(self, Fault::SlowDisk | Fault::HungDisk | Fault::FrozenDisk | Fault::FillInodes)
    }
}
