# Counts words, their letters, and the longest line.
{
    for (i = 1; i <= NF; i++) {
        count[$i]++
        letters += length($i)
        if ($i ~ /^[aeiou].*[^aeiou]$/) vowels++
    }
    if (length($0) > longest) longest = length($0)
    gsub(/[aeiou]/, "*")
    starred += split($0, parts, "*") - 1
}
END {
    for (word in count) { words++; squares += count[word] * count[word] }
    print words, letters, vowels, longest, starred, squares
}
