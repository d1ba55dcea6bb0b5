"""The files themselves, whoever writes or reads them."""
