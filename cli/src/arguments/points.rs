//! Arguments of `forebay points`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use edge_agent::points::import::Source;

/// `forebay points`
#[derive(Args, Clone, Debug)]
pub struct Points {
    /// What to do.
    #[command(subcommand)]
    pub action: PointsAction,
}

/// What to do with point lists.
#[derive(Clone, Debug, Subcommand)]
pub enum PointsAction {
    /// Make a point list of another program's export.
    Import(Import),
}

/// `forebay points import`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "  forebay points import press.csv --from kepware > points.csv       CSV of tags: Modbus, Siemens, Logix\n  \
    forebay points import PLCTags.xlsx --from tia > points.csv        tag table of TIA Portal\n  \
    forebay points import tags.xlsx --from neuron --unit 2 > points.csv\n  \
    forebay points import telegraf.conf --from telegraf > points.csv  its [[inputs.modbus]]\n\n\
    The list is on standard output, what could not be taken over on standard error, line by line with the reason. Remarks \
    at the top of the list are for the device in the configuration.\n\n\
    Exit codes: 0 all was taken over, 1 something was not, 2 the file or the arguments are wrong."
)]
pub struct Import {
    /// The export.
    pub file: PathBuf,
    /// Whose it is.
    #[arg(long)]
    pub from: From,
    /// The driver that will read the points; by default what their addresses look like.
    #[arg(long)]
    pub driver: Option<String>,
    /// Take the points of this Modbus unit; by default of the first one in the file.
    #[arg(long)]
    pub unit: Option<u8>,
    /// Order of bytes in numbers of several registers, where the export does not say it.
    #[arg(long, value_parser = ["ABCD", "CDAB", "BADC", "DCBA"])]
    pub order: Option<String>,
    /// Let commands write the points that the export may write; by default none is writable.
    #[arg(long)]
    pub writable: bool,
    /// Make poll groups of scan rates.
    #[arg(long)]
    pub groups: bool,
}

/// Programs whose exports are read.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum From {
    /// Kepware's server (KEPServerEX, TOP Server): CSV of a device or tag group.
    Kepware,
    /// TIA Portal: tag table, xlsx or CSV.
    Tia,
    /// EMQX Neuron: tags of a southbound node, xlsx or CSV.
    Neuron,
    /// Telegraf: configuration with [[inputs.modbus]].
    Telegraf,
}

impl From {
    /// As the reader knows it.
    #[must_use]
    pub const fn source(self) -> Source {
        match self {
            Self::Kepware => Source::Kepware,
            Self::Tia => Source::Tia,
            Self::Neuron => Source::Neuron,
            Self::Telegraf => Source::Telegraf,
        }
    }
}
