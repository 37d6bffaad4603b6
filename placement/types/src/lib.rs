//! Vocabulary: ids, names, sizes, codec, and the Env seam.
