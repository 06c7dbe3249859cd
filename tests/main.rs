mod chunking;
mod packing;
