"""What the tests of every DNS server share: processes, an upstream server, queries, the store."""
