# What the examples read, and a folder for jobs.
cd /srv/jobs
mkdir data
mkdir -p /srv/photos/2023 /srv/photos/2024 /srv/texts /srv/reads/one /srv/reads/two /srv/genomes /srv/images
for year in 2023 2024; do for n in 1 2 3; do echo photo $year $n > /srv/photos/$year/$year-$n.jpg; done; done
echo none of a year > /srv/photos/cover.jpg
for n in 1 2 3; do echo some words $n > /srv/texts/$n.txt; done
for n in a b c; do echo $n > data/$n; done
for who in one two; do for n in 1 2; do echo read > /srv/reads/$who/$n.fastq; done; done
echo genome > /srv/genomes/one.fa

# The directory that has the CID of the page.
mkdir -p pack/photos/2024/may pack/masks/png
echo a > pack/photos/2024/may/a.jpg
echo b > pack/photos/2024/may/b.jpg
echo m > pack/masks/png/m.png
agent input pack pack/photos -o /srv/photos.car
agent input pack pack/masks -o /srv/masks.car

# The programs that they run.
program() {
  { echo '#!/bin/sh -eu' && cat; } > /usr/local/bin/$1
  chmod +x /usr/local/bin/$1
}
program album <<'END'
find $SHEAF_INPUT_PHOTOS -type f | sort > "$SHEAF_OUTPUT_ALBUMS/$SHEAF_PARTITION_INDEX"
END
program count-words <<'END'
find /texts -type f | xargs cat | wc -w > $SHEAF_OUTPUT_COUNTS/words
END
program add-counts <<'END'
awk '{ n += $1 } END { print n }' $SHEAF_INPUT_COUNTS/words > $SHEAF_OUTPUT_TOTAL/words
END
program draw <<'END'
echo $SHEAF_PARTITION_INDEX > $SHEAF_OUTPUT_PICTURES/$SHEAF_PARTITION_INDEX
END
program measure <<'END'
case $1 in 7) exit 64 ;; 8) exit 77 ;; esac
END
program clean <<'END'
END

mkdir -p /etc/sheaf.d
(umask 077; echo drowssap > /etc/sheaf.d/s3.key)
systemctl start containerd
