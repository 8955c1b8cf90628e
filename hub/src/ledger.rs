//! What a person must be able to look up later: losses by policy, trims past a cursor, mismatches, rebuilds.
