# Reads its input from an object store.

job "from-s3" {
  # Credentials are in the clients' configuration, never in a jobspec.
  input "photos" {
    source = "s3://bucket/photos/"
    mount  = "/photos"
  }

  split {
    glob       = "/**/*.jpg"
    batch_size = 1000
  }

  task "resize" {
    driver = "containerd"
    config {
      image = "docker.io/dpokidov/imagemagick:7"
      args  = ["-resize", "100x100", "-path", "/thumbs", "/photos/*.jpg"]
    }
    resources {
      cpu    = 500
      memory = "512MiB"
    }
    timeout = "10m"
  }

  output "thumbs" {
    path = "/thumbs"
  }
}
