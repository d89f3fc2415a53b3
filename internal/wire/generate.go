package wire

//go:generate protoc -I . --plugin=protoc-gen-go=../../bin/tools/protoc-gen-go --plugin=protoc-gen-go-grpc=../../bin/tools/protoc-gen-go-grpc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative wire.proto
