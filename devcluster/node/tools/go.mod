// Small programs of the test cluster: the standard library alone.
module sluice.dev/devcluster/node/tools

go 1.25.0
