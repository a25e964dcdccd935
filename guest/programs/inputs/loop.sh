i=0
sum=1
text=
while [ $i -lt 80000 ]; do
    i=$((i + 1))
    sum=$(((sum * 31 + i) % 65521))
    case $sum in
    *7) text=$sum ;;
    1*) text=${text%?}x ;;
    esac
done
echo $sum $text
