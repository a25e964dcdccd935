# Counts words, and prints the most frequent ones with what was done to them.
use strict;
use warnings;

my (%count, %after, $last);
while (my $line = <STDIN>) {
    chomp $line;
    for my $word (split / /, $line) {
        $count{$word}++;
        $after{"$last $word"}++ if defined $last && $word =~ /^[a-f]/;
        $last = $word;
    }
    $line =~ s/(\w)(\w+)/$2$1/g;
    $count{length $line}++;
}
my @words = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
printf "%s %d\n", $_, $count{$_} for @words[0 .. 99];
my @pairs = sort { $after{$b} <=> $after{$a} || $a cmp $b } keys %after;
printf "%s %d\n", $_, $after{$_} for @pairs[0 .. 99];
