# Pretends to build a commit: sh build.sh REPOSITORY COMMIT
echo "built $1 at $(echo "$2" | cut -c 1-7)"
