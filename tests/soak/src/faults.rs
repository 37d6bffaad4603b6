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
            Fault::Turnover => &[Row::M8, Row::M10],
        }
    }

    /// It destroys what was durable: only one disk may suffer from such faults until it is replaced.
    pub fn is_damage(self) -> bool {
        matches!(self, Fault::FlipBits | Fault::Truncate | Fault::LieAboutSync | Fault::OldDisk)
    }

    pub fn is_possible(self, means: Means) -> bool {
        (means.network || !self.needs_network()) && (means.images || !self.needs_images())
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
        )
    }

    /// It needs file systems of our own.
    fn needs_images(self) -> bool {
        matches!(self, Fault::CutPowerOfOne | Fault::CutPowerOfAll | Fault::LieAboutSync | Fault::FillDisk)
    }

    /// It changes who is part of the cluster, which takes a further disk.
    pub fn needs_disk(self) -> bool {
        matches!(self, Fault::ReplaceNode | Fault::Turnover)
    }
}
