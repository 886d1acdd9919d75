"""One loader per benchmark's file format."""
