package fsm

//go:generate protoc -I . -I ../../internal/wire --plugin=protoc-gen-go=../../bin/tools/protoc-gen-go --go_out=. --go_opt=paths=source_relative --go_opt=Mwire.proto=github.com/sheaf-run/agent/internal/wire command.proto
