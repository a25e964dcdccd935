i=0
while [ $i -lt 300 ]; do
    /bin/true || exit 1
    i=$((i + 1))
done
echo $i
