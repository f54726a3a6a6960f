// Small programs of the test cluster: the standard library alone.
module sluice.dev/e2e/cluster/tools

go 1.25.0
