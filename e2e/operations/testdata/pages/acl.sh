printf 'job "job" {\n  task "t" {\n    driver = "exec"\n    config {\n      command = "true"\n    }\n  }\n}\n' > job.hcl
