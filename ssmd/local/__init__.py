"""The whole stack on one machine: real servers from wheels under supervisor."""
