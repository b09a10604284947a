module github.com/mlbridge/mlbridge/bindings/go

go 1.26.0
