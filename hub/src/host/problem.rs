//! What can be wrong with a message, by name: a counter each.

use runtime::telemetry::{Counter, Metrics};

macro_rules! problems {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// A named problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) enum Problem { $($(#[$doc])* $variant,)* }

        impl Problem {
            /// Every problem, in order of declaration.
            const ALL: &'static [Problem] = &[$(Problem::$variant,)*];

            /// As counters and reasons name it.
            pub(super) const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }
        }
    };
}

problems! {
    /// The topic is none of Sparkplug's.
    BadTopic = "bad-topic";
    /// A retained message that must not be retained: old news.
    Retained = "retained";
    /// Changed on its way: what it says is not what was sent.
    Damaged = "damaged-on-the-way";
    /// Not a Sparkplug payload.
    Garbage = "garbage-payload";
    /// Data or a death of a node or device whose birth is not known.
    BeforeBirth = "before-birth";
    /// Data of an epoch that the agent's birth does not name.
    UnknownEpoch = "unknown-epoch";
    /// An alias or name that no birth gave.
    UnknownMetric = "unknown-metric";
    /// One alias for two metrics.
    AmbiguousAlias = "ambiguous-alias";
    /// A metric twice in one birth.
    DuplicateMetric = "duplicate-metric";
    /// A path that another agent or metric has.
    PathConflict = "path-conflict";
    /// A metric whose type is no scalar.
    UnsupportedType = "unsupported-type";
    /// A name, or a whole set of names, beyond its bound.
    TooLong = "name-too-long";
    /// A metric without a name.
    Nameless = "nameless-metric";
    /// A value that is none of its type, or beyond its bound.
    BadValue = "bad-value";
    /// Data of an agent without the identity that its birth promised, or with an impossible one.
    BadIdentity = "bad-identity";
    /// A death of a session that is not the present one.
    OldDeath = "death-of-another-session";
    /// More nodes, devices or points than a hub takes.
    TooMany = "too-many";
    /// A gap in the sequence numbers that did not close.
    Gap = "sequence-gap";
    /// Data that the store could not take; agents send it again.
    NotTaken = "not-taken";
    /// Data of a foreign node that the store could not take: gone.
    ForeignLost = "foreign-lost";
    /// A quarantine entry left out, because there were too many in a second.
    QuarantineSkipped = "quarantine-skipped";
}

/// The counters.
#[derive(Debug)]
pub(super) struct ProblemCounts(Vec<Counter>);

impl ProblemCounts {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counter = |problem: &Problem| {
            let help = "Problems with messages of edge nodes.";
            metrics.counter("forebay_hub_problems_total", help, &[("problem", problem.name())])
        };
        ProblemCounts(Problem::ALL.iter().map(counter).collect())
    }

    pub(super) fn add(&self, problem: Problem) {
        if let Some(counter) = self.0.get(problem as usize) {
            counter.increment();
        }
    }

    #[cfg(test)]
    pub(super) fn get(&self, problem: Problem) -> u64 {
        self.0[problem as usize].get()
    }
}
