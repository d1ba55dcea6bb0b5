"""The security master: what an exchange lists, synced into the registry, with every change told."""
