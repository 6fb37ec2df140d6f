"""What a CLIP from nothing must show, and the tests that show it (test_scratch_acceptance.py).

A name without a file is a test of that file; a file without a name is all of its tests.
"""

CHECKS: dict[str, tuple[str, ...]] = {
    # data
    "a command a stage, which goes on where it was killed": (
        "test_curate_words.py::test_killed_and_repeated_gives_the_same_bytes",
        "test_curate_images.py::test_killed_and_repeated_asks_for_nothing_twice",
        "test_curate_fetch.py::test_killed_20_times_at_random_moments_the_result_is_the_same",
        "test_curate_validate.py::test_only_what_is_new_is_checked_again_and_settings_are_kept",
    ),
    "a polite client: limits, retries, back-off, cache": (
        "test_curate_images_answers.py::test_429_with_retry_after_in_seconds_and_as_a_date",
        "test_curate_images_answers.py::test_5xx_and_broken_connections_are_asked_again_ever_later",
        "test_curate_images_answers.py::test_the_limit_that_headers_tell_is_waited_for",
        "test_curate_images.py::test_killed_and_repeated_asks_for_nothing_twice",
    ),
    "rules of words on a real excerpt; the minimum inclusive or not": (
        "test_curate_words.py::"
        "test_counts_of_the_english_excerpt_agree_with_another_way_of_counting",
        "test_curate_words.py::test_the_rules_of_the_original",
    ),
    "the search word and the alternative text are both kept": (
        "test_curate_images.py::test_all_pages_of_each_provider_with_everything_that_it_tells",
        "test_curate_validate.py::test_one_table_of_what_can_be_used",
    ),
    "copies by photo id, address, bytes and perceptual hash": (
        "test_curate_images.py::test_the_same_picture_under_words_and_providers_is_one_row",
        "test_curate_images.py::test_chains_of_equal_ids_and_addresses_become_one",
        "test_curate_validate.py::test_one_table_of_what_can_be_used",
        "test_curate_validate.py::test_near_copies_are_those_of_comparing_all_pairs",
    ),
    "downloads: limits, RGB, EXIF turns, everything decoded": (
        "test_curate_fetch.py::test_every_trick_is_a_row_and_the_rest_goes_on",
        "test_fetch_decoding.py::test_what_comes_is_judged_by_its_bytes",
        "test_fetch_decoding.py::test_frames_turns_and_formats_are_told",
        "test_fetch_decoding.py::test_what_is_written_holds_nothing_of_what_came",
    ),
    "one table with id, captions, file, sizes, hashes, split": (
        "test_curate_validate.py::test_one_table_of_what_can_be_used",
        "test_curate_validate.py::test_it_opens_as_a_source_by_split",
        "test_curate_validate.py::test_a_split_never_changes_as_data_grow",
    ),
    # tokenizer
    "names of special tokens in captions are inert": (
        "test_curate_tokenizer.py::test_names_of_special_tokens_in_captions_are_ordinary_text",
        "test_curate_tokenizer.py::test_they_are_inert_for_the_library_and_for_transformers",
    ),
    "lower case is an option": ("test_curate_tokenizer.py::test_case_and_unicode_options",),
    "decode(encode(x)) = x up to the stated normalisation": (
        "test_curate_tokenizer.py::test_decoding_brings_back_the_text_as_it_is",
        "test_curate_tokenizer.py::test_the_stated_normalisation_is_that_of_unicode",
    ),
    "the vocabulary size is honoured": (
        "test_curate_tokenizer.py::test_the_vocabulary_is_of_the_size_asked_for",
    ),
    # models
    "the tables' towers by name, with S/8@112 and a valid L": (
        "test_towers_sizes_named.py::test_patches_of_the_sizes",
        "test_towers_sizes_named.py::test_the_small_one_of_196_patches_runs",
        "test_towers_sizes_named.py::test_the_large_text_tower_is_valid_and_says_so_when_it_is_not",
    ),
    "parameter counts": (
        "test_towers_sizes_named.py::test_parameters_of_image_towers",
        "test_towers_sizes_named.py::test_parameters_of_text_towers",
        "test_towers_sizes_named.py::test_the_two_published_models_to_the_unit",
    ),
    "a later token never changes earlier outputs": (
        "test_towers_sizes_named.py::test_a_later_token_never_changes_earlier_outputs",
        "test_towers_sizes_named.py::test_a_token_sees_itself_and_the_first_is_not_blind",
    ),
    "positions count": (
        "test_towers_sizes_named.py::test_the_order_of_words_and_of_patches_counts",
    ),
    "attention rows sum to one, over keys": (
        "test_towers_sizes_named.py::test_attention_is_a_softmax_over_keys_whose_rows_sum_to_one",
    ),
    "two captions of equal length differ at the start": (
        "test_towers_sizes_named.py::test_two_captions_of_equal_length_differ_at_the_start",
    ),
    # loss
    "the loss starts at ln B": ("test_the_loss_starts_at_the_logarithm_of_the_batch",),
    "the scale is a parameter, clamped after each step": (
        "test_the_scale_is_trained_saved_and_held_below_100",
    ),
    "gradient reaches every parameter": ("test_gradient_reaches_every_parameter",),
    # schedule
    "the optimizer's real rate is lr at the end of warm-up": (
        "test_optim.py::test_the_optimizers_real_rate_at_the_end_of_warm_up_is_the_configured_one",
        "test_the_rate_of_a_run_is_the_one_asked_for",
    ),
    "no decay on norms, biases, positions, scale": ("test_what_does_not_decay",),
    "gradients are clipped": ("test_gradients_are_clipped",),
    "save and resume reproduces the loss": (
        "test_train.py::test_a_resumed_run_ends_with_the_same_bits",
        "test_recipes.py::test_the_tiny_twin_trains_is_judged_and_goes_on_where_it_stopped",
    ),
    "64 real pairs are learned by heart": ("test_sixty_four_real_pairs_are_learned_by_heart",),
    # evaluation
    "evaluation: eval mode, no graph, deterministic, one preprocessing": (
        "test_evaluation_is_still_and_its_pictures_are_those_of_training",
    ),
    "one engine with data sets as entries": ("test_evaluate_datasets.py::",),
    "per-class accuracy, top-k, intervals, normalised ensembles": (
        "test_zeroshot_tells_classes_top_k_and_intervals",
    ),
    "retrieval at 1, 5, 10 both ways with several captions": (
        "test_retrieval_counts_both_ways_over_several_captions",
    ),
    "typographic: accuracy by condition, the word's wins, margins": (
        "test_the_typographic_and_bias_pages_are_made_of_such_a_model",
        "test_probe.py::",
    ),
    # flags
    "flags are real booleans": ("test_a_flag_that_says_false_is_false",),
    "an unknown model is an error before data": ("test_unknown_names_are_refused_before_data",),
}
