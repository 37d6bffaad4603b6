//! The Env seam implemented: the operating system, and seeded doubles for tests and simulation.
